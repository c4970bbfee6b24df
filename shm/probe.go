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
	WriteLeases   bool // it can be proved that nobody sees memory that is to be used again
	Fallocate     bool // memory that is there when it is used; needed
	Populate      bool // the pages of a map, by several threads at once (5.14)
}

// Probe tries each feature once, on files of one page, and remembers the outcome.
func Probe() Features {
	f, _ := probe.ask()
	return f
}

// Ready tells whether the kernel could be asked. While the process has no descriptor left it could not, and a
// heap made then would do without every feature: seals too. *LimitError, *KernelError.
func Ready() error {
	_, err := probe.ask()
	return err
}

var probe prober

// prober remembers an answer, but not that there was none.
type prober struct {
	mu       sync.Mutex // guards the rest
	asked    bool
	features Features
}

func (p *prober) ask() (Features, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked {
		return p.features, nil
	}
	f, err := probeKernel()
	if err != nil {
		return f, err
	}
	p.asked, p.features = true, f
	return f, nil
}
