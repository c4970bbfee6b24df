package pool

import (
	"errors"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/theus-project/theus-go/internal/failpoint"
	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/shm"
	"golang.org/x/sys/unix"
)

// reactor waits on all sockets of a pool. Anyone may register, arm or post; one at a time reads, the holder of reading.
//
// It uses an epoll of its own rather than Go's: a wake-up goes from the kernel straight to this thread, without
// a hop through the runtime's poller (measured 11-12 µs against 49-57 µs).
type reactor struct {
	epoll int // wake and the sockets
	wake  int // eventfd: posted functions wait

	reading sync.Mutex // held while sockets and rings are read and frames handled; taken before Pool.mu

	onPanic func(*guard.Panic)
	mu      sync.Locker // Pool.mu

	// guarded by Pool.mu
	next    uint64
	peers   map[uint64]peer
	posted  []func()
	stopped bool
	done    chan struct{}
}

// peer is what sits at the other end of a registered connection.
type peer interface {
	connection() *conn
	// received handles one frame, without Pool.mu; reactor.reading is held.
	received(*frame) error
	// lost is called once when the connection has ended, or broke the protocol (err not nil).
	lost(err error)
}

// wakeToken is what events of wake are about; those of sockets have the numbers that add gives.
const wakeToken = 0

func newReactor(mu sync.Locker, onPanic func(*guard.Panic)) (*reactor, error) {
	r := &reactor{epoll: -1, wake: -1, mu: mu, onPanic: onPanic, peers: map[uint64]peer{}, done: make(chan struct{})}
	if err := r.open(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *reactor) open() (err error) {
	if r.epoll, err = newEpoll(); err != nil {
		return shm.Refusal("epoll_create", err)
	}
	if r.wake, err = newEventfd(); err != nil {
		return shm.Refusal("eventfd", err)
	}
	if err = control(r.epoll, unix.EPOLL_CTL_ADD, r.wake, wakeToken, unix.EPOLLIN); err != nil {
		return shm.Refusal("epoll_ctl", err)
	}
	return nil
}

func newEpoll() (int, error) {
	if err := failpoint.Fail(failpoint.PoolEpollCreate); err != nil {
		return -1, err
	}
	return unix.EpollCreate1(unix.EPOLL_CLOEXEC)
}

func control(epoll, op, fd int, token uint64, events uint32) error {
	if err := failpoint.Fail(failpoint.PoolEpollControl); err != nil {
		return err
	}
	event := unix.EpollEvent{Events: events, Fd: int32(token), Pad: int32(token >> 32)}
	return unix.EpollCtl(epoll, op, fd, &event)
}

func tokenOf(e *unix.EpollEvent) uint64 { return uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32 }

// refused has something tried again that must not fail, or somebody is never woken. Only a lack of memory is a
// reason to try again; what else the kernel may say is a bug, and told as one.
func (r *reactor) refused(call string, err error, lock sync.Locker, again func()) {
	if !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.EAGAIN) {
		r.onPanic(&guard.Panic{Where: call, Value: err})
		return
	}
	guard.AfterFunc(time.Millisecond, call, r.onPanic, func() {
		lock.Lock()
		defer lock.Unlock()
		again()
	})
}

// add registers a connection. Pool.mu is held.
func (r *reactor) add(p peer) (token uint64, err error) {
	r.next++
	token = r.next
	if err := control(r.epoll, unix.EPOLL_CTL_ADD, p.connection().fd, token, unix.EPOLLIN); err != nil {
		return 0, err
	}
	r.peers[token] = p
	return token, nil
}

// flushLater has the rest of a connection's frames written when they can be. Pool.mu is held.
func (p *Pool) flushLater(c *conn, token uint64) {
	if !c.crowded {
		p.reactor.arm(c, token, true)
		return
	}
	if c.retrying {
		return
	}
	c.retrying = true
	// epoll would call it writable for ever; no event says when descriptors leave flight.
	guard.AfterFunc(time.Millisecond, "flush", p.options.OnPanic, func() {
		p.mu.Lock()
		defer p.unlock()
		c.retrying = false
		if c.flush() {
			p.flushLater(c, token)
		}
	})
}

// arm asks to be told as well when the socket takes more. Pool.mu is held.
func (r *reactor) arm(c *conn, token uint64, writable bool) {
	events := uint32(unix.EPOLLIN)
	if writable {
		events |= unix.EPOLLOUT
	}
	if c.fd < 0 || r.peers[token] == nil {
		return
	}
	if err := control(r.epoll, unix.EPOLL_CTL_MOD, c.fd, token, events); err != nil {
		r.refused("epoll_ctl", err, r.mu, func() { r.arm(c, token, len(c.out) > 0) })
	}
}

// remove forgets a connection; the caller closes it. Pool.mu is held.
func (r *reactor) remove(c *conn, token uint64) {
	if _, ok := r.peers[token]; ok {
		delete(r.peers, token)
		_ = control(r.epoll, unix.EPOLL_CTL_DEL, c.fd, token, 0)
	}
}

// post has f run on the reactor's goroutine, holding reading, without Pool.mu. Pool.mu is held here. False: the reactor has ended.
func (r *reactor) post(f func()) bool {
	if r.stopped {
		return false
	}
	r.posted = append(r.posted, f)
	r.kick()
	return true
}

// kick wakes the reactor. Pool.mu is held.
func (r *reactor) kick() {
	if r.wake < 0 {
		return
	}
	if err := signalEventfd(r.wake); err != nil {
		r.refused("eventfd", err, r.mu, r.kick)
	}
}

// react is the reactor's goroutine. It ends when the pool has stopped it.
func (p *Pool) react() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := p.reactor
	defer close(r.done)
	events := make([]unix.EpollEvent, 16)
	for {
		n, err := r.await(events)
		if err != nil && !errors.Is(err, unix.EINTR) {
			p.options.OnPanic(&guard.Panic{Where: "epoll_wait", Value: err})
			return
		}
		if p.handle(events[:max(n, 0)]) {
			return
		}
	}
}

func (r *reactor) await(events []unix.EpollEvent) (int, error) {
	if err := failpoint.Fail(failpoint.PoolEpollWait); err != nil {
		return 0, err
	}
	return unix.EpollWait(r.epoll, events, -1)
}

// handle does what events call for, and reports whether the reactor is to end.
func (p *Pool) handle(events []unix.EpollEvent) (stop bool) {
	p.reactor.reading.Lock()
	defer p.reactor.reading.Unlock()
	for i := range events {
		if token := tokenOf(&events[i]); token != wakeToken {
			p.serve(token, events[i].Events)
		} else if p.runPosted() {
			stop = true
		}
	}
	return stop
}

// readFrom handles what a worker has put into its ring, and what it has sent before. reading is held, and let go of, whatever happens.
func (p *Pool) readFrom(w *worker) {
	defer p.reactor.reading.Unlock()
	p.mu.Lock()
	lost := p.reactor.peers[w.token] == nil
	p.mu.Unlock()
	if lost {
		return
	}
	if err := dispatchFrames(w); err != nil {
		w.lost(err)
	} else if w.comes() {
		p.serve(w.token, unix.EPOLLIN)
	}
}

// runPosted runs what was posted and reports whether the reactor is to end. reading is held.
func (p *Pool) runPosted() (stop bool) {
	clearEventfd(p.reactor.wake)
	p.mu.Lock()
	posted := p.reactor.posted
	p.reactor.posted = nil
	stop = p.reactor.stopped
	p.mu.Unlock()
	for _, f := range posted {
		f()
	}
	return stop
}

// serve handles what epoll said of one connection.
func (p *Pool) serve(token uint64, events uint32) {
	p.mu.Lock()
	peer := p.reactor.peers[token]
	if peer == nil { // removed after this batch of events was fetched
		p.mu.Unlock()
		return
	}
	c := peer.connection()
	if events&unix.EPOLLOUT != 0 {
		pending := c.flush()
		if !pending || c.crowded {
			p.reactor.arm(c, token, false)
		}
		if pending && c.crowded {
			p.flushLater(c, token)
		}
	}
	p.mu.Unlock()
	if events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) == 0 {
		return
	}
	_, err := c.receive()
	if frameErr := dispatchFrames(peer); frameErr != nil { // at the end of the stream, too: something may be in the ring
		err = frameErr
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		peer.lost(err)
	}
}

// mostFrames is more than one receive and a ring can bring.
const mostFrames = 1 << 13

// dispatchFrames handles all whole frames that have come, and at most as many as the socket and the ring can hold: a ring that is
// filled again and again keeps nobody from being served. What is left is met the next time.
func dispatchFrames(p peer) error {
	for range mostFrames {
		f, err := p.connection().next()
		if err != nil || f == nil {
			return err
		}
		if err := p.received(f); err != nil {
			return err
		}
	}
	return nil
}

// drain reads what a dead peer left, up to the end of its stream. An error: what is behind it was not read.
func drain(p peer) error {
	for {
		more, err := p.connection().receive()
		if frameErr := dispatchFrames(p); frameErr != nil {
			return frameErr
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil || !more:
			return err
		}
	}
}

// close gives the descriptors back. reading is held, if anyone else knows of r: who reads for himself just now finds -1
// from here on, not a descriptor that has become something else.
func (r *reactor) close() {
	for _, fd := range []*int{&r.epoll, &r.wake} {
		if *fd >= 0 {
			_ = closeFD(*fd)
			*fd = -1
		}
	}
}
