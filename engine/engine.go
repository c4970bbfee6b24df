package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/theus-project/theus-go/engine/state"
	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/pool"
	"github.com/theus-project/theus-go/shm"
)

// Options of an engine; the zero value is usable.
type Options struct {
	Name       string
	Workers    int // <= 0: one per CPU
	Threads    int // BLAS threads per worker; <= 0: CPUs / Workers
	HeapBytes  uint64
	Seed       uint64 // 0: random
	Python     string
	WorkerMain string
	Cwd        string
	Env        []string
	SysPath    []string
	Preload    []string
	Lazy       bool // start workers with the first task
}

// Errors of the engine. Those of shm, state and pool pass through.
var (
	ErrClosed      = pool.ErrClosed
	ErrPublished   = errors.New("the array is published already and cannot change; engine.heavy.edit makes its next version")
	ErrNotFound    = errors.New("not found")
	ErrUnpublished = errors.New("allocated, but not published yet")
	ErrReleased    = pool.ErrReleased
)

// PoisonedError says that a bug was caught earlier; nothing of this engine can be trusted any more.
type PoisonedError struct{ Cause *guard.Panic }

func (e *PoisonedError) Error() string {
	return "the engine stopped after an internal error; please report it: " + e.Cause.Error() + "\n" + e.Cause.Stack
}

// Engine is one open engine. All methods may be called from any goroutine.
type Engine struct {
	options Options
	heap    *shm.Heap
	store   *state.Store
	pool    *pool.Pool
	poison  atomic.Pointer[guard.Panic]
	trimmer trimmer
	reaper  reaper
	ended   chan struct{} // closed when the engine is, or is poisoned, for who waits for readers
	ending  sync.Once     // guards ended

	mu       sync.Mutex // guards closed and building
	closed   bool
	building map[string]int // keys with arrays under construction, for "allocated, but not published"
}

// Open makes an engine with an empty state.
func Open(o Options) (*Engine, error) {
	cpus := pool.Processors
	if o.Workers <= 0 {
		o.Workers = cpus
	}
	if o.Threads <= 0 {
		o.Threads = max(1, cpus/o.Workers)
	}
	if o.Name == "" {
		o.Name = "theus"
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	if o.Preload == nil {
		o.Preload = []string{"numpy"}
	}
	if err := shm.Ready(); err != nil {
		return nil, err
	}
	e := &Engine{options: o, store: state.New(), ended: make(chan struct{}), building: map[string]int{}}
	e.heap = shm.NewHeap(shm.HeapOptions{
		Limit: o.HeapBytes, OnDrop: func(seg *shm.Segment) { e.pool.Retire(seg) }, OnSpare: e.trimLater, Cancelled: e.mayAllocate,
	})
	p, err := pool.New(pool.Options{
		Name: o.Name, Python: o.Python, WorkerMain: o.WorkerMain, Env: o.Env, Cwd: o.Cwd, SysPath: o.SysPath,
		Preload: o.Preload, Workers: o.Workers, Threads: o.Threads, Seed: o.Seed,
		Heap: e.heap, OnPanic: e.Poison, Locate: locate, Pinned: e.pinnedByTasks,
	})
	if err != nil {
		return nil, err
	}
	e.pool = p
	if !o.Lazy {
		p.Start()
	}
	return e, nil
}

// Poison records a bug: tasks end, later calls fail with a PoisonedError.
func (e *Engine) Poison(p *guard.Panic) {
	if e.poison.CompareAndSwap(nil, p) {
		e.end()
		// In a goroutine: the panic may have left a lock of this very goroutine held.
		guard.Go("poisoning", func(*guard.Panic) {}, func() { e.pool.Fail(&PoisonedError{p}) })
	}
}

// Check gives the error that every operation begins with, or nil.
func (e *Engine) Check() error {
	if p := e.poison.Load(); p != nil {
		return &PoisonedError{p}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	return nil
}

// pinnedByTasks visits the arrays of old versions that tasks alone pin.
func (e *Engine) pinnedByTasks(visit func(*pool.Array)) {
	for _, held := range e.store.HeldByTasks() {
		visit(&held.(*entry).array)
	}
}

// mayAllocate ends the making of a large segment when the engine closes, which would wait for it.
func (e *Engine) mayAllocate() error {
	if e.pool.Ending() {
		return ErrClosed
	}
	return nil
}

// Drain waits until no task is left.
func (e *Engine) Drain(timeout time.Duration) bool { return e.pool.Drain(timeout) }

// Close ends tasks and processes. Bufs and snapshots stay readable until released. Who closes what is being closed waits
// until it is.
func (e *Engine) Close(grace time.Duration) {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.end()
	e.pool.Close(grace)
	e.store.Close()
	e.stopTrimming()
}

// end wakes who waits for readers. Check gives an error by now.
func (e *Engine) end() { e.ending.Do(func() { close(e.ended) }) }

// Closed reports whether Close was called, also of a poisoned engine.
func (e *Engine) Closed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

// Seed is the root of the tasks' random streams.
func (e *Engine) Seed() uint64 { return e.options.Seed }

// Pool gives access to functions, queues and logs.
func (e *Engine) Pool() *pool.Pool { return e.pool }

// KeyError is ErrNotFound or ErrUnpublished with its key.
type KeyError struct {
	Key  string
	Kind error
	Hint string
}

func (e *KeyError) Error() string { return fmt.Sprintf("%q: %v%s", e.Key, e.Kind, e.Hint) }

// Unwrap gives the kind.
func (e *KeyError) Unwrap() error { return e.Kind }
