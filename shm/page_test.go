//go:build linux

package shm

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The race detector does not see this memory, so the proof is that no torn or earlier
// value ever shows up while another process stores.
func TestPageShowsWholeStoresInOrder(t *testing.T) {
	watch(t)
	p, err := NewPage()
	require.NoError(t, err)
	assert.Zero(t, p.Load())
	child := start(t, "page", p.FD())
	ended := make(chan error, 1)
	go func() { _, err := child.ends(); ended <- err }()
	var last uint64
	for done := false; !done; {
		select {
		case err := <-ended:
			require.NoError(t, err)
			done = true
		default:
		}
		word := p.Load()
		require.Equal(t, word>>32, word&0xffffffff, "a torn word")
		require.GreaterOrEqual(t, word, last)
		last = word
	}
	assert.EqualValues(t, 100_000, last>>32)
	p.Close()
	assert.Equal(t, last, p.Load(), "the last word stays")
	assert.Equal(t, -1, p.FD())
	p.Close()
}

func TestPageCannotShrinkUnderTheHost(t *testing.T) {
	watch(t)
	p, err := NewPage()
	require.NoError(t, err)
	defer p.Close()
	assert.ErrorIs(t, unix.Ftruncate(p.FD(), 0), unix.EPERM)
}

func TestPageMayBeClosedWhileItIsRead(t *testing.T) {
	watch(t)
	for range 50 {
		p, err := NewPage()
		require.NoError(t, err)
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				for range 100 {
					assert.Zero(t, p.Load())
				}
			})
		}
		p.Close()
		readers.Wait()
	}
}
