package shm

import (
	"fmt"
	"sync/atomic"
)

// A ring carries short messages from one process to another through memory that both map. Each side writes its own ring alone,
// and in it what the other has to know of it:
//
//	0   put: messages written so far. Stored last, so what it counts is whole.
//	8   taken: messages that this side has taken out of the other's ring
//	16  looks: 1 if this side looks at the other's ring before it sleeps
//	24  sent: bytes that this side has written to the socket beside the rings, for who looks
//	64  the slots, in turn: u64 mark, u64 length, the message
//
// A message is for who looks; the socket is for who sleeps. To send, one puts the message and then looks at the other's "looks"; to
// sleep, one clears its own "looks" and then looks at the other's "put". Each is a store and then a load of another word,
// which a processor may do the other way round: both sides have a full fence between the two (Go's atomic stores are some). So either
// the sender sees that he has to wake the other, or the other sees the message.
//
// The mark says how many bytes of the socket come before the message: together the two keep the order in which was sent.
const (
	putWord   = 0
	takenWord = 8
	looksWord = 16
	sentWord  = 24

	slotsOffset = 64
	ringSlots   = 8
	slotSize    = 2040
	ringSize    = slotsOffset + ringSlots*slotSize

	// ringMessage is how long a message may be.
	ringMessage = slotSize - 16
)

// rings are both, seen from one end.
type rings struct {
	own, peer uintptr       // addresses
	put       uint64        // the caller's to guard
	taken     atomic.Uint64 // written by one at a time
}

// offer puts a message into the own ring. False: it is too long, or the ring is full.
func (r *rings) offer(mark uint64, message []byte) bool {
	if len(message) > ringMessage || r.put-load64(r.peer+takenWord) >= ringSlots {
		return false
	}
	slot := r.own + slotsOffset + uintptr(r.put%ringSlots)*slotSize
	store64(slot, mark)
	store64(slot+8, uint64(len(message)))
	copyIn(slot+16, message)
	r.put++
	store64(r.own+putWord, r.put)
	return true
}

func (r *rings) pending() bool { return load64(r.peer+putWord) != r.taken.Load() }

// take gives the peer's next message if its mark is not beyond consumed; nil: there is none. What the peer has written is not trusted.
func (r *rings) take(consumed uint64) ([]byte, error) {
	taken := r.taken.Load()
	switch announced := load64(r.peer+putWord) - taken; {
	case announced == 0:
		return nil, nil
	case announced > ringSlots:
		return nil, fmt.Errorf("a ring of %d messages announces %d", ringSlots, announced)
	}
	slot := r.peer + slotsOffset + uintptr(taken%ringSlots)*slotSize
	if load64(slot) > consumed {
		return nil, nil
	}
	length := load64(slot + 8)
	if length > ringMessage {
		return nil, fmt.Errorf("a message in a ring announces %d bytes, more than %d", length, ringMessage)
	}
	message := make([]byte, length)
	copyOut(message, slot+16)
	r.taken.Store(taken + 1)
	store64(r.own+takenWord, taken+1)
	return message, nil
}

// Put writes a message for the worker, to be read behind that many bytes of the socket. False: it must go by the socket, because it is
// too long, or too many wait. Not for two at once.
func (p *Page) Put(mark uint64, message []byte) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.m.addr != 0 && p.rings.offer(mark, message)
}

// Pending reports whether the worker has put a message that was not taken yet.
func (p *Page) Pending() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.m.addr != 0 && p.rings.pending()
}

// Comes reports whether there is something to read, in the ring or by the socket, of which so many bytes were received.
func (p *Page) Comes(received uint64) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.m.addr != 0 && (p.rings.pending() || load64(p.rings.peer+sentWord) > received)
}

// Take gives the worker's next message, if no more than so many bytes of the socket come before it; nil: there is none. An error says
// that the worker has written what is no ring. Not for two at once.
func (p *Page) Take(consumed uint64) ([]byte, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.m.addr == 0 {
		return nil, nil
	}
	return p.rings.take(consumed)
}

// Look tells the worker whether the host looks for messages of it.
func (p *Page) Look(looks bool) {
	word := uint64(0)
	if looks {
		word = 1
	}
	p.store(looksWord, word)
}

// Sent tells the worker how many bytes there are on the socket, with those that it has read.
func (p *Page) Sent(bytes uint64) { p.store(sentWord, bytes) }

func (p *Page) store(word uintptr, value uint64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.m.addr != 0 {
		store64(p.rings.own+word, value)
	}
}

// PeerLooks reports whether the worker looks for messages before it sleeps.
func (p *Page) PeerLooks() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.m.addr != 0 && load64(p.rings.peer+looksWord) == 1
}
