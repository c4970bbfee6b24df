package pool

import "runtime"

// The Go runtime ends the process when the system refuses it a thread. So threads are made beforehand, at a moment
// when a refusal is an error (capi/threads.go); what is here bounds how many are ever needed.

// Processors is how many processors this process could use when the library was loaded, by its affinity and cgroup
// quotas. On large machines GOMAXPROCS is less.
var Processors = runtime.GOMAXPROCS(0)

// MostAllocations is how many allocations for workers may be in the kernel at once: each occupies a thread meanwhile.
const MostAllocations = 8

var allocations = make(chan struct{}, MostAllocations)

// inTurn is allocate, as one of at most MostAllocations, of all pools. ErrClosed when the pool ends before its turn comes.
func (p *Pool) inTurn(allocate func() error) func() error {
	return func() error {
		select {
		case allocations <- struct{}{}:
			defer func() { <-allocations }()
			return allocate()
		case <-p.closing:
			return ErrClosed
		}
	}
}
