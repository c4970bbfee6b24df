package pool

import (
	"errors"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/theus-project/theus-go/internal/guard"
	"golang.org/x/sys/unix"
)

// reactor waits on all sockets of a pool. Anyone may register, arm or post; one at a time reads, the holder of reading.
//
// It uses an epoll of its own rather than Go's: a wake-up goes from the kernel straight to this thread, without
// a hop through the runtime's poller (measured 11-12 µs against 49-57 µs). The sockets are in an epoll within that one, so
// that the reactor can step back, with one system call, while a caller polls for its own result (Look).
type reactor struct {
	outer int // wake and sockets; only the reactor waits on it
	epoll int // the sockets
	wake  int // eventfd: posted functions wait

	reading sync.Mutex // held while sockets are read and frames handled; taken before Pool.mu

	attendance sync.Mutex // guards attending, and whether sockets are armed in outer; a leaf
	attending  int        // callers that poll just now

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

// What the events of outer are about.
const (
	wakeToken    = 0
	socketsToken = 1
)

func newReactor() (*reactor, error) {
	r := &reactor{outer: -1, epoll: -1, wake: -1, peers: map[uint64]peer{}, done: make(chan struct{})}
	if err := r.open(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *reactor) open() (err error) {
	if r.outer, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	if err = control(r.outer, unix.EPOLL_CTL_ADD, r.wake, wakeToken, unix.EPOLLIN); err != nil {
		return err
	}
	return control(r.outer, unix.EPOLL_CTL_ADD, r.epoll, socketsToken, unix.EPOLLIN)
}

func control(epoll, op, fd int, token uint64, events uint32) error {
	event := unix.EpollEvent{Events: events, Fd: int32(token), Pad: int32(token >> 32)}
	return unix.EpollCtl(epoll, op, fd, &event)
}

func tokenOf(e *unix.EpollEvent) uint64 { return uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32 }

// attend has the reactor step back while the caller polls; leave has it come again. Level-triggered: what
// came in between is seen then.
func (r *reactor) attend() { r.attendedBy(1) }
func (r *reactor) leave()  { r.attendedBy(-1) }

func (r *reactor) attendedBy(n int) {
	r.attendance.Lock()
	defer r.attendance.Unlock()
	before := r.attending
	r.attending += n
	switch {
	case before == 0:
		_ = control(r.outer, unix.EPOLL_CTL_MOD, r.epoll, socketsToken, 0)
	case r.attending == 0:
		_ = control(r.outer, unix.EPOLL_CTL_MOD, r.epoll, socketsToken, unix.EPOLLIN)
	}
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
	// epoll would call it writable for ever; no event says when descriptors leave flight.
	guard.AfterFunc(time.Millisecond, "flush", p.options.OnPanic, func() {
		p.mu.Lock()
		defer p.unlock()
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
	if c.fd >= 0 {
		_ = control(r.epoll, unix.EPOLL_CTL_MOD, c.fd, token, events)
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

func (r *reactor) kick() {
	one := [8]byte{1}
	_, _ = unix.Write(r.wake, one[:])
}

// react is the reactor's goroutine. It ends when the pool has stopped it.
func (p *Pool) react() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := p.reactor
	defer close(r.done)
	events := make([]unix.EpollEvent, 2)
	for {
		n, err := unix.EpollWait(r.outer, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			p.options.OnPanic(&guard.Panic{Where: "epoll_wait", Value: err})
			return
		}
		for i := range max(n, 0) {
			if tokenOf(&events[i]) == socketsToken {
				r.reading.Lock()
				p.readReady()
			} else if p.runPosted() {
				return
			}
		}
	}
}

// readReady handles what has come on all sockets, without waiting. reading is held, and let go of, whatever happens.
func (p *Pool) readReady() {
	defer p.reactor.reading.Unlock()
	var events [16]unix.EpollEvent
	n, _ := unix.EpollWait(p.reactor.epoll, events[:], 0)
	for i := range max(n, 0) {
		p.serve(tokenOf(&events[i]), events[i].Events)
	}
}

// runPosted runs what was posted and reports whether the reactor is to end.
func (p *Pool) runPosted() (stop bool) {
	var count [8]byte
	_, _ = unix.Read(p.reactor.wake, count[:])
	p.mu.Lock()
	posted := p.reactor.posted
	p.reactor.posted = nil
	stop = p.reactor.stopped
	p.mu.Unlock()
	p.reactor.reading.Lock()
	defer p.reactor.reading.Unlock()
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
	if err == nil {
		err = dispatchFrames(peer)
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		peer.lost(err)
	}
}

// dispatchFrames handles all whole frames that have come.
func dispatchFrames(p peer) error {
	for {
		f, err := p.connection().next()
		if err != nil || f == nil {
			return err
		}
		if err := p.received(f); err != nil {
			return err
		}
	}
}

// drain reads what a dead peer left, up to the end of its stream.
func drain(p peer) {
	for {
		more, err := p.connection().receive()
		if frameErr := dispatchFrames(p); err != nil || frameErr != nil || !more {
			return
		}
	}
}

// close gives the descriptors back. reading is held, if anyone else knows of r: who polls just now finds -1
// from here on, not a descriptor that has become something else.
func (r *reactor) close() {
	r.attendance.Lock()
	defer r.attendance.Unlock()
	for _, fd := range []*int{&r.outer, &r.epoll, &r.wake} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}
