package pool

// WorkerStats is one line of Stats.
type WorkerStats struct {
	Index int    `json:"index"`
	PID   int    `json:"pid"`
	State string `json:"state"`
	Tasks uint64 `json:"tasks"`
	RSS   uint64 `json:"rss_bytes"`
}

// Stats is a picture of the pool.
type Stats struct {
	Workers         []WorkerStats
	Queued, Running int
	Counts
	Warnings []string
}

// Stats takes one.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{Queued: len(p.queue), Counts: p.counts}
	s.Running = len(p.tasks) - len(p.queue)
	for i, w := range p.workers {
		if w == nil {
			continue
		}
		s.Workers = append(s.Workers, WorkerStats{i, w.pid, w.stateName(), w.done, residentBytes(w.pid)})
	}
	if p.zygote != nil {
		s.Warnings = p.zygote.warnings
	}
	return s
}

// Processes lists the pids that the pool has running, the zygote's first.
func (p *Pool) Processes() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var pids []int
	if p.zygote != nil {
		pids = append(pids, p.zygote.pid)
	}
	for _, w := range p.workers {
		if w != nil && w.pid > 0 {
			pids = append(pids, w.pid)
		}
	}
	return pids
}
