//go:build linux

package shm

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const mib = 1 << 20

// fakeMachine has memory of which only theus and `others` take some.
type fakeMachine struct {
	total, others, allocated uint64
	looked                   int
	err                      error
}

func (m *fakeMachine) headroom() (headroom, error) {
	m.looked++
	taken := m.others + m.allocated
	return headroom{bytes: m.total - min(m.total, taken), source: "MemAvailable"}, m.err
}

// fakeHeaps gives heaps with these limits on one fake machine.
func fakeHeaps(m *fakeMachine, limits ...uint64) (b *budget, heaps []*Heap) {
	b = newBudget(m.headroom)
	for _, limit := range limits {
		heaps = append(heaps, &Heap{options: HeapOptions{Limit: limit}, budget: b})
	}
	return b, heaps
}

// take reserves and, as the kernel would, allocates.
func (m *fakeMachine) take(b *budget, h *Heap, label string, n uint64) (*charge, error) {
	c, err := b.reserve(h, label, n)
	if err == nil {
		m.allocated += n
		c.committed(int64(n))
	}
	return c, err
}

func TestDefaultLimitIsFourFifthsOfWhatIsLeft(t *testing.T) {
	m := &fakeMachine{total: 1000 * mib, others: 500 * mib}
	b, heaps := fakeHeaps(m, 0)
	_, err := m.take(b, heaps[0], "first", 300*mib)
	require.NoError(t, err)
	assert.EqualValues(t, 400*mib, roughly(b.stats(heaps[0]).Limit), "own use does not lower it")
	_, err = m.take(b, heaps[0], "second", 101*mib)
	var full *FullError
	require.ErrorAs(t, err, &full)
	assert.EqualValues(t, 101*mib, full.Asked)
	assert.EqualValues(t, 300*mib, full.InUse)
	assert.EqualValues(t, 400*mib, roughly(full.Limit))
	assert.Equal(t, "MemAvailable", full.Source)
	assert.Equal(t, []Holder{{Label: "first", Bytes: 300 * mib}}, full.Holders)
	_, err = m.take(b, heaps[0], "second", 99*mib)
	require.NoError(t, err)

	m.others += 50 * mib
	assert.EqualValues(t, 360*mib, roughly(b.stats(heaps[0]).Limit), "what others take does lower it")
}

// roughly hides what is lost by dividing before multiplying.
func roughly(n uint64) uint64 { return (n + mib/2) / mib * mib }

func TestOwnLimit(t *testing.T) {
	m := &fakeMachine{total: 1000 * mib}
	b, heaps := fakeHeaps(m, 100*mib, 100*mib)
	c, err := m.take(b, heaps[0], "most", 99*mib)
	require.NoError(t, err)
	_, err = m.take(b, heaps[1], "of another heap", 100*mib)
	require.NoError(t, err)
	_, err = m.take(b, heaps[0], "too much", 2*mib)
	var full *FullError
	require.ErrorAs(t, err, &full)
	assert.Equal(t, &FullError{Asked: 2 * mib, InUse: 99 * mib, Limit: 100 * mib, Source: "heap=", Label: "too much",
		Holders: []Holder{{Label: "most", Bytes: 99 * mib}}}, full)
	assert.Contains(t, err.Error(), `cannot allocate 2.0 MiB for "too much": 99.0 MiB of 100.0 MiB in use`)
	assert.Contains(t, err.Error(), `held by "most" 99.0 MiB`)
	assert.Contains(t, err.Error(), "raise heap=")
	assert.EqualValues(t, 100*mib, b.stats(heaps[0]).Limit)

	c.retire()
	_, err = m.take(b, heaps[0], "too much", 2*mib)
	assert.ErrorContains(t, err, "still mapped by a worker")
	c.release()
	_, err = m.take(b, heaps[0], "fits now", 2*mib)
	require.NoError(t, err)
}

func TestOwnLimitAboveTheMachine(t *testing.T) {
	m := &fakeMachine{total: 1000 * mib}
	b, heaps := fakeHeaps(m, 1<<40)
	var full *FullError
	for {
		if _, err := m.take(b, heaps[0], "x", 10*mib); err != nil {
			require.ErrorAs(t, err, &full)
			break
		}
	}
	assert.Equal(t, "MemAvailable", full.Source)
	assert.EqualValues(t, 950*mib, full.InUse, "a twentieth stays free, however it is approached")
}

// Two heaps share the machine: neither gets four fifths for itself, and who is refused
// is told who has it all.
func TestHeapsShareTheMachine(t *testing.T) {
	m := &fakeMachine{total: 1000 * mib}
	b, heaps := fakeHeaps(m, 0, 0)
	_, err := m.take(b, heaps[0], "a", 500*mib)
	require.NoError(t, err)
	_, err = m.take(b, heaps[1], "b", 310*mib)
	var full *FullError
	require.ErrorAs(t, err, &full)
	assert.Equal(t, []Holder{{Label: "a", Bytes: 500 * mib}}, full.Holders)
	assert.Empty(t, b.holders(heaps[1], 5))
}

// Between the reservation and the last page the kernel's numbers lag behind: a second
// thread must not be given the same bytes.
func TestReservedBytesAreNotGivenTwice(t *testing.T) {
	m := &fakeMachine{total: 1000 * mib}
	b, heaps := fakeHeaps(m, 0)
	first, err := b.reserve(heaps[0], "being allocated", 500*mib)
	require.NoError(t, err)
	_, err = b.reserve(heaps[0], "at the same time", 400*mib)
	var full *FullError
	require.ErrorAs(t, err, &full)
	m.allocated += 500 * mib
	first.committed(500 * mib)
	_, err = b.reserve(heaps[0], "later", 300*mib)
	require.NoError(t, err)
}

func TestMachineIsLookedAtAgain(t *testing.T) {
	m := &fakeMachine{total: 1 << 40}
	b, heaps := fakeHeaps(m, 0)
	for range 3 {
		_, err := m.take(b, heaps[0], "large", mib)
		require.NoError(t, err)
	}
	assert.Equal(t, 3, m.looked, "for every large one")
	for range 16 * 256 {
		_, err := m.take(b, heaps[0], "small", 4096)
		require.NoError(t, err)
	}
	assert.Equal(t, 4, m.looked, "once for 16 MiB of small ones")

	before := m.looked
	b.left.bytes, b.base = 0, 0 // as if the machine had been full when it was last looked at
	_, err := m.take(b, heaps[0], "small", 4096)
	require.NoError(t, err, "before a refusal")
	assert.Equal(t, before+1, m.looked)
}

func TestAnotherProgramMayTakeWhatWasReserved(t *testing.T) {
	m := &fakeMachine{total: 1000 * mib}
	b, heaps := fakeHeaps(m, 0)
	c, err := b.reserve(heaps[0], "large", 500*mib)
	require.NoError(t, err)
	piece := func(n uint64) {
		m.allocated += n
		c.committed(int64(n))
	}
	require.NoError(t, c.stillFits(), "nothing has been given yet")
	piece(100 * mib)
	m.others = 300 * mib // four fifths of the 700 that are not theirs are more than 500
	require.NoError(t, c.stillFits())
	piece(100 * mib)
	m.others = 400 * mib // and of 600 they are not
	var full *FullError
	require.ErrorAs(t, c.stillFits(), &full)
	assert.EqualValues(t, 500*mib, full.Asked)
	assert.EqualValues(t, 0, full.InUse)
	assert.Equal(t, "MemAvailable", full.Source)
	c.release()
	_, err = m.take(b, heaps[0], "less", 100*mib)
	require.NoError(t, err)
}

func TestMachineThatCannotBeRead(t *testing.T) {
	m := &fakeMachine{total: 1000 * mib, err: errors.New("no /proc")}
	b, heaps := fakeHeaps(m, 0)
	_, err := m.take(b, heaps[0], "x", 1)
	require.ErrorIs(t, err, m.err)
	assert.Zero(t, b.stats(heaps[0]).InUse)
}

func TestGivingBackTwicePanics(t *testing.T) {
	m := &fakeMachine{total: 1000 * mib}
	b, heaps := fakeHeaps(m, 0)
	c, err := m.take(b, heaps[0], "x", 1)
	require.NoError(t, err)
	c.release()
	assert.Panics(t, c.release)
}

// Random lives on a random machine: the books agree with a sum, no limit is ever passed, and
// nothing is refused that fits.
func TestBudgetAgainstASum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &fakeMachine{total: rapid.Uint64Range(0, 2000*mib).Draw(t, "total")}
		own := rapid.Uint64Range(1, 1000*mib).Draw(t, "heap=")
		b, heaps := fakeHeaps(m, 0, own)
		var taken []*charge
		sum := func(h *Heap, retiring bool) (n uint64) {
			for _, c := range taken {
				if (h == nil || c.heap == h) && (!retiring || c.retiring) {
					n += c.bytes
				}
			}
			return n
		}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				h := rapid.SampledFrom(heaps).Draw(t, "heap")
				n := rapid.OneOf(rapid.Uint64Range(1, 64<<10), rapid.Uint64Range(1, 800*mib)).Draw(t, "bytes")
				c, err := m.take(b, h, "x", n)
				share := uint64(80)
				if h.options.Limit != 0 {
					share = 95
				}
				after := sum(nil, false) + n
				fits := after <= (m.total/100+1)*share && (h == heaps[0] || sum(h, false)+n <= own)
				if err == nil {
					taken = append(taken, c)
					assert.True(t, fits, "took %d", n)
				} else if fits {
					// Only what the division lost may be in between.
					assert.Greater(t, after+200*share, m.total/100*share, "refused %d: %v", n, err)
				}
			},
			"retire": func(t *rapid.T) {
				if len(taken) == 0 {
					t.Skip("none")
				}
				rapid.SampledFrom(taken).Draw(t, "charge").retire()
			},
			"release": func(t *rapid.T) {
				if len(taken) == 0 {
					t.Skip("none")
				}
				i := rapid.IntRange(0, len(taken)-1).Draw(t, "charge")
				taken[i].release()
				m.allocated -= taken[i].bytes
				taken = append(taken[:i], taken[i+1:]...)
			},
			"": func(t *rapid.T) {
				assert.Equal(t, sum(nil, false), b.inUse)
				assert.Zero(t, b.pending)
				for _, h := range heaps {
					stats := b.stats(h)
					assert.Equal(t, sum(h, false), stats.InUse)
					assert.Equal(t, sum(h, true), stats.RetiringBytes)
					assert.Len(t, b.holders(h, 1<<30), stats.Segments+stats.Retiring)
				}
			},
		})
	})
}

func TestAPrivateMapCountsInFull(t *testing.T) {
	h := heapWith(t, HeapOptions{Limit: 3 << 20})
	s := create(t, h, 1<<20)
	before := h.Stats()
	_, unmap, err := s.PrivateMap()
	require.NoError(t, err)
	assert.EqualValues(t, 1<<20, h.Stats().InUse-before.InUse)
	assert.Equal(t, before.Segments, h.Stats().Segments)
	_, unmapToo, err := s.PrivateMap()
	require.NoError(t, err)
	_, _, err = s.PrivateMap()
	var full *FullError
	require.ErrorAs(t, err, &full)
	assert.Contains(t, full.Error(), "(private copy)")
	unmap()
	unmapToo()
	assert.Equal(t, before.InUse, h.Stats().InUse)
}

func TestAReservationCountsUntilItIsReleased(t *testing.T) {
	h := heapWith(t, HeapOptions{Limit: 2 << 20})
	s := create(t, h, 1<<20)
	room, err := h.ReservePrivate(s)
	require.NoError(t, err)
	assert.NotEqual(t, s.ID(), room.ID())
	assert.EqualValues(t, 2<<20, h.Stats().InUse)
	assert.Equal(t, 1, h.Stats().Segments)
	_, err = h.ReservePrivate(s)
	require.ErrorAs(t, err, new(*FullError))
	room.Release()
	room.Release()
	assert.EqualValues(t, 1<<20, h.Stats().InUse)
}
