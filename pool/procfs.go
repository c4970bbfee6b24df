package pool

// What /proc says of a process that is not ours to wait for.

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/theus-project/theus-go/internal/failpoint"
	"github.com/theus-project/theus-go/shm"
)

const pfExiting = 4 // include/linux/sched.h, since 2.6

// exiting reports whether a process is on its way out, or gone. The kernel closes its sockets before it says that it has
// ended, so at the end of a stream this alone tells a dead worker from one that was cut off; a signal sent to it then changes nothing.
func exiting(pid int) bool {
	_, flags, ok := processState(pid)
	return !ok || flags&pfExiting != 0
}

// stopped reports whether a process is stopped by SIGSTOP or the like. A debugger's stop is another state.
func stopped(pid int) bool {
	state, _, ok := processState(pid)
	return ok && state == "T"
}

// ended reports whether a process has ended; its parent may not have been told yet. (Its memory goes earlier than that.)
func ended(pid int) bool {
	state, _, ok := processState(pid)
	return !ok || hasEnded(state)
}

func hasEnded(state string) bool { return state == "Z" || state == "X" }

// processState reads the state letter and the kernel's flags of a process.
func processState(pid int) (state string, flags uint64, ok bool) {
	stat, err := readFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, false
	}
	// The name before it, in parentheses, is the process's own choice.
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 7 {
		return "", 0, false
	}
	flags, err = strconv.ParseUint(fields[6], 10, 64)
	return fields[0], flags, err == nil
}

// residentBytes reads a process's resident set size; 0 when it is gone.
func residentBytes(pid int) uint64 {
	data, err := readFile(fmt.Sprintf("/proc/%d/statm", pid))
	fields := strings.Fields(string(data))
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(fields[1], 10, 64)
	return pages * uint64(os.Getpagesize())
}

func readFile(name string) ([]byte, error) {
	if err := failpoint.Fail(failpoint.PoolReadFile); err != nil {
		return nil, err
	}
	return shm.ReadFile(name)
}
