package shm

import "sync"

// Features tells what this kernel can do. What is false is worked around; what
// cannot be worked around is an error when it is needed.
type Features struct {
	Memfd         bool // anonymous files; else unnamed ones on /dev/shm
	NoexecSeal    bool // files that can never be executed (Linux 6.3)
	FutureWrite   bool // no new writable maps of what the host wrote (5.1)
	DontUnmapMove bool // Freeze keeps the warm map (5.13)
	Leases        bool // Adopt can prove that the writer let go
	Fallocate     bool // memory that is there when it is used; needed
}

// Probe tries each feature once, on files of one page, and remembers the outcome.
func Probe() Features { return probe() }

var probe = sync.OnceValue(probeKernel)
