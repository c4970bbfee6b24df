package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/theus-project/theus-go/pool"
)

// Memory, handles and processes come back by themselves: capi releases what finalizers have queued, the pool's watch has workers let go
// of retired memory and buries the dead. All of it is counted where it happens, in numbers that only grow; what happened during a Reap
// is the difference of two readings. (The difference of what is *held* would not do: another thread may allocate meanwhile.)

// Reaped counts what was given back.
type Reaped struct {
	Segments  uint64 `json:"segments"`
	Bytes     uint64 `json:"bytes"`
	Handles   uint64 `json:"handles"`
	Processes uint64 `json:"processes"`
}

// reaper is the engine's part in it.
type reaper struct {
	turn    sync.Mutex    // held by the Reap that runs, so that no two report the same
	handles atomic.Uint64 // released for finalizers
	last    atomic.Int64  // when something was last reclaimed or looked for, in Unix nanoseconds; 0: never
}

// ReleasedLater notes that a handle of this engine was released which a finalizer had queued.
func (e *Engine) ReleasedLater() {
	e.reaper.handles.Add(1)
	e.reaper.last.Store(time.Now().UnixNano())
}

// Reap reclaims now what is reclaimed in the background a little later, and counts what was given back while it did.
// releaseQueued releases what finalizers have queued. Workers that still map retired memory are asked to collect their garbage;
// a busy one is waited for only a little.
func (e *Engine) Reap(releaseQueued func()) Reaped {
	e.reaper.turn.Lock()
	defer e.reaper.turn.Unlock()
	before := e.Reaped()
	releaseQueued()
	if e.heap.Retiring() {
		e.pool.LetGo()
		e.pool.AwaitRetired(pool.Patience, func() bool { return !e.heap.Retiring() || !e.pool.Asking() })
	}
	e.heap.Trim(0)
	e.reaper.last.Store(time.Now().UnixNano())
	after := e.Reaped()
	return Reaped{
		Segments:  after.Segments - before.Segments,
		Bytes:     after.Bytes - before.Bytes,
		Handles:   after.Handles - before.Handles,
		Processes: after.Processes - before.Processes,
	}
}

// Reaped counts what was given back since the engine was opened.
func (e *Engine) Reaped() Reaped {
	r := e.heap.Returned()
	return Reaped{
		Segments: r.Segments, Bytes: r.Bytes,
		Handles: e.reaper.handles.Load(), Processes: uint64(e.pool.Buried()),
	}
}

// reaperStats is Reaped with the time when the reaper last had anything to do, in seconds since 1970; nil: never.
func (e *Engine) reaperStats() any {
	last := time.Unix(0, e.reaper.last.Load())
	if round := e.pool.LastRound(); round.After(last) {
		last = round
	}
	stats := struct {
		Reaped
		LastRun *float64 `json:"last_run"`
	}{Reaped: e.Reaped()}
	if last.UnixNano() > 0 {
		seconds := float64(last.UnixNano()) / 1e9
		stats.LastRun = &seconds
	}
	return stats
}
