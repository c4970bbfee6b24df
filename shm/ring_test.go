//go:build linux

package shm

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// worker is the other end of a page's rings, in this process.
func (p *Page) worker() *rings {
	return &rings{own: p.m.addr + workerRing, peer: p.m.addr + hostRing}
}

func newPage(t *testing.T) *Page {
	t.Helper()
	watch(t)
	p, err := NewPage()
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

func TestRingTakesMessagesInTurn(t *testing.T) {
	p := newPage(t)
	worker := p.worker()
	for round := range 5 * ringSlots {
		for n := range ringSlots {
			require.True(t, p.Put(0, []byte{byte(round), byte(n)}))
		}
		require.False(t, p.Put(0, nil), "it is full")
		require.True(t, worker.pending())
		for n := range ringSlots {
			message, err := worker.take(0)
			require.NoError(t, err)
			require.Equal(t, []byte{byte(round), byte(n)}, message)
		}
		require.False(t, worker.pending())
	}
}

func TestRingHoldsAMessageBackForWhatComesBefore(t *testing.T) {
	p := newPage(t)
	worker := p.worker()
	require.True(t, worker.offer(10, []byte("behind")))
	require.True(t, worker.offer(10, nil))
	message, err := p.Take(9)
	require.NoError(t, err)
	assert.Nil(t, message)
	assert.True(t, p.Pending())
	message, err = p.Take(10)
	require.NoError(t, err)
	assert.Equal(t, "behind", string(message))
	message, err = p.Take(11)
	require.NoError(t, err)
	assert.NotNil(t, message, "an empty one is one, too")
	assert.False(t, p.Pending())
}

func TestRingRefusesWhatDoesNotFit(t *testing.T) {
	p := newPage(t)
	require.True(t, p.Put(0, make([]byte, ringMessage)))
	require.False(t, p.Put(0, make([]byte, ringMessage+1)))
	message, err := p.worker().take(0)
	require.NoError(t, err)
	require.Len(t, message, ringMessage)
}

func TestRingBelievesNothing(t *testing.T) {
	for name, spoil := range map[string]func(p *Page){
		"too many messages": func(p *Page) { store64(p.rings.peer+putWord, ringSlots+1) },
		"fewer than before": func(p *Page) { store64(p.rings.peer+putWord, ^uint64(0)) },
		"too long": func(p *Page) {
			store64(p.rings.peer+slotsOffset+8, ringMessage+1)
			store64(p.rings.peer+putWord, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPage(t)
			spoil(p)
			_, err := p.Take(0)
			assert.ErrorContains(t, err, "announces")
		})
	}
	p := newPage(t)
	store64(p.rings.peer+takenWord, 5) // more than were put
	assert.False(t, p.Put(0, nil))
}

func TestRingWordsAreForTheOtherSide(t *testing.T) {
	p := newPage(t)
	worker := p.worker()
	assert.False(t, p.PeerLooks())
	store64(worker.own+looksWord, 1)
	assert.True(t, p.PeerLooks())
	p.Look(true)
	assert.EqualValues(t, 1, load64(worker.peer+looksWord))
	p.Look(false)
	assert.Zero(t, load64(worker.peer+looksWord))
	p.Sent(77)
	assert.EqualValues(t, 77, load64(worker.peer+sentWord))
}

func TestRingOfAClosedPageIsEmpty(t *testing.T) {
	p := newPage(t)
	require.True(t, p.worker().offer(0, []byte("x")))
	p.Close()
	assert.False(t, p.Pending())
	assert.False(t, p.PeerLooks())
	assert.False(t, p.Put(0, nil))
	message, err := p.Take(0)
	assert.Nil(t, message)
	assert.NoError(t, err)
	p.Look(true)
	p.Sent(1)
}
