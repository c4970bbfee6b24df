package pool

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"

	"github.com/theus-project/theus-go/internal/guard"
	"golang.org/x/sys/unix"
)

// reticentZygote forks what is asked of it and tells nobody; then it is gone, or does nothing more.
func reticentZygote(vanishes bool) {
	c := newPeer(3)
	c.read()
	c.write(frameZygoteReady, 0, []byte(`{}`))
	c.read() // SPAWN
	cmd := exec.Command(os.Args[0], strconv.Itoa(os.Getpid()))
	cmd.Env = append(os.Environ(), roleVariable+"=orphan")
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	if vanishes {
		os.Exit(7)
	}
	select {}
}

// fakeZygote starts workers; a mute one does not say so.
func fakeZygote(mute bool) {
	c := newPeer(3)
	var mu sync.Mutex // guards writes to c
	if f := c.read(); f.kind != frameConfig {
		panic("CONFIG must come first")
	}
	c.write(frameZygoteReady, 0, []byte(`{"pid":0,"python":"fake","mode":"exec","warnings":["a warning"]}`))
	for {
		f := c.read()
		if f.kind != frameSpawn {
			panic(fmt.Sprint("zygote got frame ", f.kind))
		}
		id := f.id
		cmd := exec.Command(os.Args[0], strconv.FormatUint(id, 10))
		cmd.Env = append(os.Environ(), roleVariable+"=worker")
		cmd.Stderr = os.Stderr
		socket, page := os.NewFile(uintptr(f.fds[0]), ""), os.NewFile(uintptr(f.fds[1]), "")
		cmd.ExtraFiles = []*os.File{socket, page}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		_, _ = socket.Close(), page.Close()
		if mute {
			continue
		}
		pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
		if err != nil {
			panic(err)
		}
		var e encoder
		e.u32(uint32(cmd.Process.Pid))
		mu.Lock()
		c.write(frameSpawned, id, e.buf, pidfd)
		mu.Unlock()
		guard.Go("wait", func(p *guard.Panic) { panic(p.Error()) }, func() {
			_ = cmd.Wait()
			var e encoder
			e.u32(uint32(cmd.Process.Pid))
			e.u32(uint32(cmd.ProcessState.Sys().(syscall.WaitStatus)))
			e.u64(0)
			mu.Lock()
			defer mu.Unlock()
			c.write(frameExited, id, e.buf)
		})
	}
}
