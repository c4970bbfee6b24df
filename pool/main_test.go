package pool

import (
	"os"
	"strconv"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The pool is tested without Python: this test binary plays the zygote and the workers, started by the pool itself. They speak
// the real protocol; what a task does is told by its target's name.

const roleVariable = "THEUS_POOL_TEST_ROLE"

// roles are what else this binary may play, by name; builds with tags add to them.
var roles = map[string]func(){}

func TestMain(m *testing.M) {
	name := os.Getenv(roleVariable)
	if play, found := roles[name]; found {
		play()
	}
	switch name {
	case "zygote":
		fakeZygote(false)
	case "mute zygote":
		fakeZygote(true)
	case "barren zygote":
		c := newPeer(3)
		c.read()
		c.write(frameZygoteReady, 0, []byte(`{}`))
		c.read() // SPAWN
		os.Exit(7)
	case "silent zygote":
		select {}
	case "reticent zygote", "vanishing zygote":
		reticentZygote(name == "vanishing zygote")
	case "orphan":
		for parent := os.Args[1]; strconv.Itoa(os.Getppid()) == parent; {
			_, _ = unix.Poll(nil, 1)
		}
		os.Exit(0)
	case "dying zygote":
		os.Exit(7)
	case "worker":
		fakeWorker()
	default:
		_ = os.Setenv(hostVariable, strconv.Itoa(os.Getpid()))
		spawner() // its goroutine never ends, by design
		goleak.VerifyTestMain(m, goleak.IgnoreCurrent(), goleak.IgnoreTopFunction("github.com/theus-project/theus-go/pool.init.func1.1"))
	}
}

// peerConn is a blocking conn for the fakes.
type peerConn struct{ conn }

func newPeer(fd int) *peerConn { return &peerConn{conn{fd: fd, maxPayload: maxConfig}} }

func (c *peerConn) read() *frame {
	for {
		if f, err := c.next(); err != nil {
			panic(err)
		} else if f != nil {
			return f
		}
		if r, ok := c.rings.(*fakeRings); ok {
			r.sleep(c.fd)
		} else {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}, -1)
		}
		if _, err := c.receive(); err != nil {
			os.Exit(0)
		}
	}
}

func (c *peerConn) write(kind frameType, id uint64, payload []byte, fds ...int) {
	for pending := c.send(kind, id, payload, fds...); pending; pending = c.flush() {
		fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLOUT}}
		_, _ = unix.Poll(fds, -1)
	}
}
