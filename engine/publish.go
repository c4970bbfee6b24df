package engine

import (
	"errors"
	"fmt"

	"github.com/theus-project/theus-go/pool"
	"github.com/theus-project/theus-go/shm"
)

// Publishing several arrays is all or nothing: first each takes what it could be refused (prepare), then all are frozen,
// which needs nothing more. Both happen under the lock of the state that serialises commits.

// publishAll freezes arrays, or none of them.
func publishAll(bufs []*Buf, version uint64) error {
	for i, b := range bufs {
		if err := b.prepare(); err != nil {
			for _, prepared := range bufs[:i+1] {
				prepared.abandon()
			}
			return err
		}
	}
	for _, b := range bufs {
		if err := b.freeze(version); err != nil {
			return err
		}
	}
	return nil
}

// begin keeps the array, its draft and whether it is published as they are until end, whatever another thread releases
// meanwhile. Without it, what was released before its commit reached freeze passed for published, and was never written.
func (b *Buf) begin() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.released {
		return ErrReleased
	}
	b.commits++
	return nil
}

// end undoes begin.
func (b *Buf) end() {
	b.mu.Lock()
	b.commits--
	last := b.commits == 0 && b.released
	b.mu.Unlock()
	if last {
		b.letGo()
	}
}

// prepare takes what freeze needs.
func (b *Buf) prepare() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.building || b.draft != nil {
		return nil
	}
	return b.failed(b.array.Segment.PrepareFreeze())
}

// abandon undoes prepare.
func (b *Buf) abandon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.building && b.draft == nil {
		b.array.Segment.AbandonFreeze()
	}
}

// freeze makes the array what others see: nobody can change it any more.
func (b *Buf) freeze(version uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.building {
		if b.version == 0 { // the result of a task: it was made immutable when it came
			b.version = version
		}
		return nil
	}
	if b.draft != nil {
		b.array.Slot.Write(b.draft.Address())
	} else if err := b.failed(b.array.Segment.Freeze()); err != nil {
		return err
	}
	b.building = false
	b.version = version
	b.engine.count(b.array.Key, -1)
	return nil
}

func (b *Buf) failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("publishing %q: %w", b.array.Key, err)
}

// settle ends the writing of an output, by whomever: from here on nobody changes it, whatever becomes of the commit. Where somebody
// still could, the array is a copy of what there was; if there is no room for that it can be tried again. The host's old address
// stays valid until the array is released. mu is held.
func (b *Buf) settle() error {
	if !b.array.Output {
		return nil
	}
	seg := b.array.Segment
	err := seg.Settle()
	stillWritten := errors.Is(err, shm.ErrStillWritten) || errors.Is(err, shm.ErrNoProof)
	if err != nil && !stillWritten {
		return b.failed(err)
	}
	b.owner = false // it is read like what others have written
	if stillWritten {
		if seg, err = b.engine.heap.Copy(seg, seg.Label()); err != nil {
			return b.failed(err)
		}
	}
	own := *b.array
	own.Segment, own.Output = seg, false
	if seg != b.array.Segment {
		b.former = b.array
	}
	b.array = &own
	return nil
}

// forState gives the array, with a reference of its own, as the state may hold it. A result may refer to an array
// in an arena that the task had been given; under a key it would keep the whole arena, so it is copied into a slot of its own.
// Between begin and end.
func (b *Buf) forState() (*pool.Array, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.settle(); err != nil {
		return nil, err
	}
	a := b.array.Ref()
	if a.Slot != nil || !a.Segment.Shared() || !a.Layout.Dense() {
		return a, nil
	}
	defer a.Unref()
	nbytes, err := a.Layout.NBytes()
	if err != nil {
		return nil, err
	}
	base, err := a.Segment.Readable()
	if err != nil {
		return nil, err
	}
	slot, err := b.engine.reserve(int64(nbytes), a.Key)
	if err != nil {
		return nil, err
	}
	slot.Write(base + uintptr(a.Offset))
	own := *a
	own.Slot = slot
	b.array = &own // the place of its views stays what it was
	return b.array.Ref(), nil
}
