package engine

import (
	"encoding/json"

	"github.com/theus-project/theus-go/pool"
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
		"warnings":  p.Warnings,
	})
}

// Reaped counts what a Reap gave back.
type Reaped struct {
	Segments  int    `json:"segments"`
	Bytes     uint64 `json:"bytes"`
	Handles   int    `json:"handles"`
	Processes int    `json:"processes"`
}

// Reap runs release, which lets go of what finalizers have queued and counts it, and
// waits a little for workers to let go of what was retired. The difference in the heap is what it reports.
func (e *Engine) Reap(release func() (handles int)) Reaped {
	before := e.heap.Stats()
	r := Reaped{Handles: release()}
	e.pool.AwaitRetired(patience, func() bool { return e.heap.Stats().Retiring == 0 })
	e.heap.Trim(0)
	after := e.heap.Stats()
	r.Segments = max(0, before.Segments+before.Retiring-after.Segments-after.Retiring)
	if after.InUse < before.InUse {
		r.Bytes = before.InUse - after.InUse
	}
	return r
}
