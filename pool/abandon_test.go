//go:build failpoints

package pool

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/shm"
	"golang.org/x/sys/unix"
)

func init() { roles["abandoning host"] = abandoningHost }

// A host loses a pool without closing it. Another pool of the same process does not notice, and when the process ends,
// however it does, so do the processes of the first: by PR_SET_PDEATHSIG, though a worker is busy and the sockets were
// never closed. Its memory goes with the last process that has it.
func TestFailpointsOfAnAbandonedPool(t *testing.T) {
	for _, end := range []string{"exit", "kill"} {
		t.Run(end, func(t *testing.T) {
			host := exec.Command(os.Args[0])
			host.Env = append(os.Environ(), roleVariable+"=abandoning host", "GORACE=atexit_sleep_ms=0")
			host.Stderr = os.Stderr
			in, err := host.StdinPipe()
			require.NoError(t, err)
			out, err := host.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, host.Start())
			timer := time.AfterFunc(60*time.Second, func() { _ = host.Process.Kill() }) // only a bug comes to that
			defer timer.Stop()
			said, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				_ = host.Process.Kill()
				_ = host.Wait()
				t.Fatal("the host said nothing")
			}
			var left []int
			for _, word := range strings.Fields(said) {
				pid, err := strconv.Atoi(word)
				require.NoError(t, err, said)
				left = append(left, pid)
			}
			require.Len(t, left, 3, "a zygote and two workers of the abandoned pool")
			for _, pid := range left {
				require.False(t, isZombie(pid), "process %d of the abandoned pool is there", pid)
			}
			require.ElementsMatch(t, append(left, host.Process.Pid), numbers(t, ownProcesses()), "and nothing else is")
			if end == "kill" {
				require.NoError(t, host.Process.Kill())
			}
			require.NoError(t, in.Close()) // it ends without another word
			_ = host.Wait()
			settles(t, "the abandoned processes end", func() bool { return len(ownProcesses()) == 0 })
		})
	}
}

func numbers(t *testing.T, words []string) (all []int) {
	t.Helper()
	for _, word := range words {
		n, err := strconv.Atoi(word)
		require.NoError(t, err)
		all = append(all, n)
	}
	return all
}

// abandoningHost abandons a pool with a busy worker and memory in use, uses another and closes it, says what is
// left of the first, and ends when it is told to.
func abandoningHost() {
	_ = os.Unsetenv(roleVariable) // for the processes that it starts: they play other roles
	abandoned, heap := hostPool(2)
	input, err := NewValue(heap, CodecRaw, [][]byte{make([]byte, 100_000)}, "input")
	must(err)
	must(outcome(abandoned, Call{Target: "echo", Input: Value{Codec: CodecRaw, Inline: [][]byte{{1}}}}))
	_, err = abandoned.Submit(Call{Target: "hang", Input: input})
	must(err)
	for abandoned.Stats().Running == 0 || len(abandoned.Processes()) < 3 {
		_, _ = unix.Poll(nil, 1)
	}
	abandoned.Abandon()
	held := heap.Stats().InUse
	if held == 0 {
		panic("nothing was in use")
	}

	other, own := hostPool(1)
	for range 20 {
		must(outcome(other, Call{Target: "large"}))
	}
	if outcome(other, Call{Target: "kill"}) == nil {
		panic("a dead worker had a result")
	}
	must(outcome(other, Call{Target: "large"}))
	other.Close(0)
	own.Close()
	for own.Stats().InUse > 0 {
		_, _ = unix.Poll(nil, 1)
	}
	if heap.Stats().InUse != held {
		panic("the abandoned memory is not in the books any more")
	}
	fmt.Println(strings.Trim(fmt.Sprint(abandoned.Processes()), "[]"))
	_, _ = os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}

func hostPool(workers int) (*Pool, *shm.Heap) {
	var p *Pool
	heap := shm.NewHeap(shm.HeapOptions{OnDrop: func(s *shm.Segment) { p.Retire(s) }})
	p, err := New(Options{
		Name: "test", Python: os.Args[0], WorkerMain: "unused", Workers: workers, Heap: heap,
		Env:     append(os.Environ(), roleVariable+"=zygote", "GORACE=atexit_sleep_ms=0"),
		OnPanic: func(p *guard.Panic) { panic(p.Error() + "\n" + p.Stack) },
	})
	must(err)
	return p, heap
}

// outcome runs a task and gives the error that it ended with, if it did.
func outcome(p *Pool, call Call) error {
	task, err := p.Submit(call)
	if err != nil {
		return err
	}
	defer task.Release()
	<-task.Done()
	if o := *task.Outcome(); o.Status != OK {
		return &taskError{&o}
	}
	return nil
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
