package pool

// What is said of a worker that died: by what, and what to do about it.

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

func (w *worker) signal() int {
	if w.exited && w.waitStatus.Signaled() {
		return int(w.waitStatus.Signal())
	}
	return 0
}

func (w *worker) exitCode() int {
	if w.exited && w.waitStatus.Exited() {
		return w.waitStatus.ExitStatus()
	}
	return -1
}

func (w *worker) describeDeath() string {
	var link *linkError
	switch {
	case errors.As(w.fault, &link):
		return "could not be talked to (" + link.Error() + ") and was ended"
	case w.fault == errUndying:
		return errUndying.Error()
	case w.fault != nil:
		return w.fault.Error() + " and was ended"
	case w.page.Load()>>statusPhase == phaseCutOff:
		return errCutOff.Error() + " and ended"
	case w.oom != nil:
		return "was killed " + w.oom.String()
	case !w.exited:
		return "was lost with its zygote (zygote lost)"
	default:
		return describeStatus(w.waitStatus)
	}
}

func describeStatus(status unix.WaitStatus) string {
	if status.Signaled() {
		return "was killed by " + unix.SignalName(status.Signal())
	}
	return fmt.Sprintf("exited with status %d", status.ExitStatus())
}

func (t *Task) crashAdvice(w *worker) string {
	if w.fault != nil { // the signal was ours
		return ""
	}
	if w.oom != nil {
		// Without its size: the kernel may take back the memory of a process that it ends before it looks how much that was.
		return "; have a task take less memory, run fewer at once (workers=), or raise the limit"
	}
	where := w.whereItFaulted()
	switch w.signal() {
	case int(unix.SIGABRT), int(unix.SIGFPE), int(unix.SIGILL):
		return where
	case int(unix.SIGSEGV), int(unix.SIGBUS):
		if len(t.read) == 0 {
			return "; native code did that, or ran out of stack" + where
		}
		keys := make([]string, 0, len(t.read))
		for k := range t.read {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		return fmt.Sprintf("; it had read the shared array(s) %q, which are read-only: if native code wrote to one, give it a private writable view, ctx.heavy.cow(%q)%s", keys, keys[0], where)
	case int(unix.SIGKILL):
		if w.notOOM {
			return "; somebody sent that (kill -9, or what limits this job): the kernel's count says that memory had not run out"
		}
		return "; SIGKILL comes from kill -9 or from the kernel when memory runs out (see dmesg, or memory.events of the cgroup)"
	}
	return ""
}
