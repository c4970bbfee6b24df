package pool

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/shm"
	"golang.org/x/sys/unix"
)

// Both ends send and receive at once, and sleep whenever nothing is there: frames come whole and in the order in which they were
// sent, whichever way they go.
func TestFramesByRingAndBySocketKeepTheirOrder(t *testing.T) {
	host, worker := ringPair(t)
	var all sync.WaitGroup
	for _, e := range []*ringEnd{host, worker} {
		all.Go(func() { e.sendAll() })
		all.Go(func() { e.receiveAll(t) })
	}
	all.Wait()
	taken, put := worker.rings.(*fakeRings).taken, worker.rings.(*fakeRings).put
	require.Positive(t, taken, "nothing has gone by the ring to the worker")
	require.Positive(t, put, "nothing has come by the ring from the worker")
}

// A frame goes to and fro, and whoever waits for it falls asleep again and again just then.
func TestNobodySleepsThroughAFrameInARing(t *testing.T) {
	host, worker := ringPair(t)
	const rounds = 50_000
	var both sync.WaitGroup
	both.Go(func() {
		for n := range uint64(rounds) {
			host.send(frameLog, n, nil)
			assert.Equal(t, n, host.await(t).id)
		}
	})
	both.Go(func() {
		for range rounds {
			worker.send(frameLog, worker.await(t).id, nil)
		}
	})
	both.Wait()
}

// ringPair is a socket with rings beside it.
func ringPair(t *testing.T) (host, worker *ringEnd) {
	t.Helper()
	watchLeftovers(t)
	ours, theirs, err := socketPair()
	require.NoError(t, err)
	page, err := shm.NewPage()
	require.NoError(t, err)
	mapped, err := unix.MmapPtr(page.FD(), 0, nil, shm.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	rings := newFakeRings(mapped)
	host = &ringEnd{conn: conn{fd: ours, maxPayload: maxPayload, rings: page}, pending: page.Pending, look: page.Look}
	worker = &ringEnd{conn: conn{fd: theirs, maxPayload: maxPayload, rings: rings}, pending: rings.pending, look: rings.look}
	t.Cleanup(func() {
		host.close()
		worker.close()
		page.Close()
		_ = unix.MunmapPtr(mapped, shm.PageSize)
	})
	return host, worker
}

const framesEachWay = 30_000

type ringEnd struct {
	conn
	outgoing sync.Mutex // as Pool.mu
	pending  func() bool
	look     func(bool)
}

// sleep waits for something to read.
func (e *ringEnd) sleep() {
	e.look(false)
	if !e.pending() {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLIN}}, 20_000)
		if n == 0 && e.pending() {
			panic("a frame was slept through")
		}
	}
	e.look(true)
}

// await gives the next frame that is no WAKE; nil when it is no frame, or the other side has ended.
func (e *ringEnd) await(t *testing.T) *frame {
	for {
		f, err := e.next()
		if !assert.NoError(t, err) {
			return nil
		}
		if f != nil && f.kind != frameWake {
			return f
		}
		if f == nil {
			more, err := e.receive()
			if err != nil {
				return nil
			}
			if !more {
				e.sleep()
			}
		}
	}
}

// sendAll sends numbered frames: mostly short ones, some that fit into no slot, some with a descriptor.
func (e *ringEnd) sendAll() {
	for n := range uint64(framesEachWay) {
		payload := make([]byte, 8)
		var fds []int
		switch rand.IntN(16) {
		case 0:
			payload = make([]byte, rand.IntN(30_000)+8)
		case 1:
			fds = []int{endOfPipe()}
		}
		binary.LittleEndian.PutUint64(payload, n)
		e.outgoing.Lock()
		pending := e.send(frameLog, n, payload, fds...)
		e.outgoing.Unlock()
		for pending {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLOUT}}, -1)
			e.outgoing.Lock()
			pending = e.flush()
			e.outgoing.Unlock()
		}
	}
}

func (e *ringEnd) receiveAll(t *testing.T) {
	for expected := range uint64(framesEachWay) {
		f := e.await(t)
		if !assert.NotNil(t, f) {
			break
		}
		closeAll(f.fds)
		if !assert.Equal(t, expected, f.id) || !assert.Equal(t, expected, binary.LittleEndian.Uint64(f.payload)) {
			break
		}
	}
	if t.Failed() {
		_ = shutdown(e.fd) // or the other side waits for ever
	}
}
