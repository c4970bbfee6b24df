package main

import (
	"sync"
	"sync/atomic"

	"github.com/theus-project/theus-go/internal/guard"
)

// Finalizers of a host language run at any moment, with its global lock held: they only push a handle here, on a list without a lock, and a
// goroutine releases it. A finalizer that waited for a lock of ours would stop every thread of the host (measured: 300 ms).
type pending struct {
	handle uint64
	next   *pending
}

var (
	pendingList atomic.Pointer[pending]
	pendingWake = make(chan struct{}, 1)
)

func pushPending(h uint64) {
	p := &pending{handle: h}
	for {
		p.next = pendingList.Load()
		if pendingList.CompareAndSwap(p.next, p) {
			break
		}
	}
	select {
	case pendingWake <- struct{}{}:
	default: // it will wake anyhow
	}
}

// releasing is held while what was pushed is released: theus_reap returns only when that is done, also
// when the goroutine below has begun with it.
var releasing sync.Mutex

// releasePending releases all that was pushed.
func releasePending() {
	releasing.Lock()
	defer releasing.Unlock()
	for p := pendingList.Swap(nil); p != nil; p = p.next {
		releaseQueued(p.handle)
	}
}

// releaseQueued releases one handle and has its engine count it. A bug that shows here poisons that engine, as in
// any call, and costs the other handles nothing.
func releaseQueued(h uint64) {
	owner := ownerOf(h)
	var err error
	p := guard.Catch("background release", func() {
		inject("background release")
		err = release(h)
	})
	switch {
	case owner == nil: // a blob, or nothing that lives
	case p != nil:
		owner.Poison(p)
	case err == nil:
		owner.ReleasedLater()
	}
}

// startReaper starts the goroutine that releases in the background, once. It sleeps until something is pushed.
var startReaper = sync.OnceFunc(func() {
	guard.Go("reaper", func(*guard.Panic) {}, func() {
		for range pendingWake {
			releasePending()
		}
	})
})
