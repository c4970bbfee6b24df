package engine

import (
	"encoding/json"

	"github.com/theus-project/theus-go/pool"
	"github.com/theus-project/theus-go/shm"
)

// Stats describes the engine as JSON; API.md names the fields.
func (e *Engine) Stats() ([]byte, error) {
	p, h, s := e.pool.Stats(), e.heap.Stats(), e.store.Stats()
	workers := p.Workers
	if workers == nil {
		workers = []pool.WorkerStats{}
	}
	return json.Marshal(map[string]any{
		"name":    e.options.Name,
		"version": e.store.Version(),
		"workers": workers,
		"memory": map[string]any{
			"in_use": h.InUse, "free_list": h.FreeList, "limit": h.Limit,
			"recycled": h.Recycled, "moved": h.Moved,
			"retiring": h.RetiringBytes, "holders": e.heap.Holders(10),
		},
		"segments":  h.Segments,
		"arenas":    h.Arenas,
		"tasks":     map[string]any{"queued": p.Queued, "running": p.Running, "done": p.Done, "failed": p.Failed},
		"conflicts": e.store.Conflicts(),
		"pins":      s.Pins,
		"reaper":    e.reaperStats(),
		"features":  features(),
		"warnings":  p.Warnings,
	})
}

// features names what of the kernel is used; what is false is worked around.
func features() map[string]bool {
	f := shm.Probe()
	return map[string]bool{
		"memfd": f.Memfd, "noexec_seal": f.NoexecSeal, "future_write_seal": f.FutureWrite,
		"mremap_dontunmap": f.DontUnmapMove, "leases": f.Leases, "write_leases": f.WriteLeases, "fallocate": f.Fallocate,
	}
}
