package pool

import (
	"sync/atomic"
	"unsafe"

	"github.com/theus-project/theus-go/shm"
	"golang.org/x/sys/unix"
)

// fakeRings is the worker's end of its page, as docs/internals.md has it.
type fakeRings struct {
	own, peer  unsafe.Pointer
	put, taken uint64
}

const (
	ringBytes   = (shm.PageSize - 4096) / 2
	messageRoom = (ringBytes - 64) / 8
)

func newFakeRings(page unsafe.Pointer) *fakeRings {
	return &fakeRings{own: unsafe.Add(page, ringBytes), peer: page}
}

func word(ring unsafe.Pointer, offset uintptr) *uint64 { return (*uint64)(unsafe.Add(ring, offset)) }

func slot(ring unsafe.Pointer, n uint64) unsafe.Pointer {
	return unsafe.Add(ring, 64+n%8*messageRoom)
}

func (r *fakeRings) Put(mark uint64, message []byte) bool {
	if len(message) > messageRoom-16 || r.put-atomic.LoadUint64(word(r.peer, 8)) >= 8 {
		return false
	}
	at := slot(r.own, r.put)
	*word(at, 0), *word(at, 8) = mark, uint64(len(message))
	copy(unsafe.Slice((*byte)(unsafe.Add(at, 16)), len(message)), message)
	r.put++
	r.announce(r.put)
	return true
}

// announce says how many messages there are.
func (r *fakeRings) announce(put uint64) { atomic.StoreUint64(word(r.own, 0), put) }

func (r *fakeRings) Take(consumed uint64) ([]byte, error) {
	at := slot(r.peer, r.taken)
	if !r.pending() || *word(at, 0) > consumed {
		return nil, nil
	}
	message := append([]byte(nil), unsafe.Slice((*byte)(unsafe.Add(at, 16)), *word(at, 8))...)
	r.taken++
	atomic.StoreUint64(word(r.own, 8), r.taken)
	return message, nil
}

func (r *fakeRings) pending() bool   { return atomic.LoadUint64(word(r.peer, 0)) != r.taken }
func (r *fakeRings) PeerLooks() bool { return atomic.LoadUint64(word(r.peer, 16)) == 1 }
func (r *fakeRings) Sent(uint64)     {}

func (r *fakeRings) look(looks bool) {
	value := uint64(0)
	if looks {
		value = 1
	}
	atomic.StoreUint64(word(r.own, 16), value)
}

// sleep waits for something to read.
func (r *fakeRings) sleep(socket int) {
	r.look(false)
	if !r.pending() {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(socket), Events: unix.POLLIN}}, -1)
	}
	r.look(true)
}
