package shm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

var (
	// ErrSize is returned for a negative size.
	ErrSize = errors.New("a segment cannot have a negative size")
	// ErrDropped is returned by a segment whose last reference is gone.
	ErrDropped = errors.New("the segment was dropped: its last reference is gone")
	// ErrNotLive is returned by WriterFD: only live segments and outputs are written by several processes.
	ErrNotLive = errors.New("only a live segment or an output hands out writable descriptors; make it with CreateLive or CreateOutput")
	// ErrNotOutput is returned by Settle for a segment that CreateOutput did not make.
	ErrNotOutput = errors.New("only an output can be settled")
	// ErrNotSettled is returned by Freeze for an output, which others may be writing.
	ErrNotSettled = errors.New("the segment is an output, which others may be writing; Settle it instead of freezing it")
	// ErrNotGranted is returned by Adopt for a segment that Grant did not make.
	ErrNotGranted = errors.New("only a granted segment can be adopted")
	// ErrNotAdopted is returned by Freeze for a granted segment that is still its writer's.
	ErrNotAdopted = errors.New("the segment belongs to its writer; Adopt it instead of freezing it")
	// ErrStillWritten is returned by Adopt while some process can still write the segment.
	ErrStillWritten = errors.New("a process still has the segment open or mapped for writing; copy it instead")
	// ErrNoProof is returned by Adopt where the kernel cannot tell who has the segment open.
	ErrNoProof = errors.New("this kernel has no working file leases, so nothing proves that the writer let go; copy the segment instead")
)

// Holder is what takes part of the budget: a segment, or all small arrays of a kind.
type Holder struct {
	Label    string `json:"label"` // as given to Create, CreateLive, Grant or Copy; "12 small arrays"
	Bytes    uint64 `json:"bytes"`
	Retiring bool   `json:"retiring"`         // dropped by the host, still mapped by a worker
	Arrays   int64  `json:"arrays,omitempty"` // of small ones, how many
}

// FullError says that an allocation was refused before it could do harm.
type FullError struct {
	Asked   uint64   `json:"asked"`   // bytes, rounded up to pages
	InUse   uint64   `json:"in_use"`  // of the heap if Source is "heap=", else of the process
	Limit   uint64   `json:"limit"`   // what InUse may not exceed
	Source  string   `json:"source"`  // "heap=", "cgroup v2 /a/b memory.max", "MemAvailable", …
	Label   string   `json:"label"`   // of the refused segment
	Cause   error    `json:"-"`       // the kernel's own refusal, or nil when the budget refused
	Holders []Holder `json:"holders"` // the largest first
}

// Error says what was asked, what is in use, which limit it would pass, and who holds most.
func (e *FullError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "shm: cannot allocate %s", Readable(e.Asked))
	if e.Label != "" {
		fmt.Fprintf(&b, " for %q", e.Label)
	}
	fmt.Fprintf(&b, ": %s of %s in use", Readable(e.InUse), Readable(e.Limit))
	if e.Source != "" {
		fmt.Fprintf(&b, " (limited by %s)", e.Source)
	}
	if e.Cause != nil {
		fmt.Fprintf(&b, "; the kernel said: %v", e.Cause)
	}
	if len(e.Holders) > 0 {
		b.WriteString("; held by ")
		for i, h := range e.Holders {
			if i > 0 {
				b.WriteString(", ")
			}
			name := strconv.Quote(h.Label)
			if h.Arrays > 1 {
				name = h.Label
			}
			fmt.Fprintf(&b, "%s %s", name, Readable(h.Bytes))
			if h.Retiring {
				b.WriteString(" (let go, but still mapped by a worker)")
			}
		}
	}
	if e.Source == "heap=" {
		b.WriteString("; let go of arrays and snapshots that hold them, or raise heap=")
	} else {
		b.WriteString("; let go of arrays and snapshots that hold them, or give the process more memory")
	}
	return b.String()
}

// Unwrap gives the kernel's refusal, if there was one.
func (e *FullError) Unwrap() error { return e.Cause }

// LimitError says that a limit of the process or the system other than memory was reached.
type LimitError struct {
	What   string        `json:"what"`   // "descriptors", "mappings", "file size", "address space"
	Limit  uint64        `json:"limit"`  // 0: not known
	Errno  syscall.Errno `json:"errno"`  // as the kernel would have it, or had it
	Advice string        `json:"advice"` // what to do
}

func (e *LimitError) Error() string {
	if e.Limit == 0 {
		return fmt.Sprintf("shm: out of %s (%v): %s", e.What, e.Errno, e.Advice)
	}
	return fmt.Sprintf("shm: out of %s, the limit is %d (%v): %s", e.What, e.Limit, e.Errno, e.Advice)
}

// Unwrap gives the errno, so that errors.Is(err, syscall.EMFILE) works.
func (e *LimitError) Unwrap() error { return e.Errno }

// KernelError says that the kernel lacks or refuses something that theus cannot do without.
type KernelError struct {
	Feature string // what was needed, e.g. "fallocate on shared memory"
	Err     error  // how the kernel answered
	Advice  string // what to do
}

func (e *KernelError) Error() string {
	return fmt.Sprintf("shm: %s failed: %v: %s", e.Feature, e.Err, e.Advice)
}

// Unwrap gives the kernel's answer.
func (e *KernelError) Unwrap() error { return e.Err }

// Refusal tells a system call of another package that the kernel refused as what it is: a *LimitError if
// descriptors have run out, else a *KernelError.
func Refusal(call string, err error) error {
	if limit := descriptorLimit(err); limit != nil {
		return limit
	}
	return &KernelError{Feature: call, Err: err, Advice: "check the sandbox and the limits of the process"}
}

// Readable writes a number of bytes the way people say it.
func Readable(n uint64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	value, unit := float64(n)/(1<<10), 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}
