package engine

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/pool"
)

func openStream(t *testing.T, e *Engine, n int64, o StreamOptions) *Stream {
	t.Helper()
	s, err := e.OpenStream("camera", floats(n), o)
	require.NoError(t, err)
	return s
}

// show publishes the next frame, with one value, and lets go of it.
func show(t *testing.T, s *Stream, value float64) {
	t.Helper()
	b, err := s.Next(0)
	require.NoError(t, err)
	at(t, b)[0] = value
	publish(t, s.engine, "camera", b)
	b.Release()
}

// sizes are of frames in an arena, and in segments of their own.
var sizes = []int64{10, 200_000}

func TestAFrameIsInUseWhileAnybodyHasIt(t *testing.T) {
	for _, size := range sizes {
		e := open(t, Options{})
		s := openStream(t, e, size, StreamOptions{Keep: 3})
		show(t, s, 1)
		first, err := e.Snapshot()
		require.NoError(t, err)
		show(t, s, 2)
		second, err := e.Snapshot()
		require.NoError(t, err)
		show(t, s, 3)

		_, err = s.Next(0)
		var full *StreamFullError
		require.ErrorAs(t, err, &full)
		require.Equal(t, &StreamFullError{Key: "camera", Versions: []uint64{1, 2, 3}}, full)
		require.ErrorContains(t, err, `the stream of heavy["camera"] keeps 3 frames, and all are in use: version 1, version 2, version 3.`)

		second.Release()
		b, err := s.Next(0)
		require.NoError(t, err)
		_, err = s.Next(0)
		require.ErrorContains(t, err, "version 1, version 3, 1 under construction")
		b.Release() // it never was
		show(t, s, 4)
		old, err := first.Get("camera")
		require.NoError(t, err)
		require.Equal(t, 1.0, at(t, old)[0], "while a reader has it, it is not written again")
		old.Release()
		first.Release()
	}
}

func TestNextWaitsForAReader(t *testing.T) {
	for _, size := range sizes {
		e := open(t, Options{})
		s := openStream(t, e, size, StreamOptions{Keep: 2})
		show(t, s, 1)
		reader, err := e.Snapshot()
		require.NoError(t, err)
		show(t, s, 2)

		type answer struct {
			buf *Buf
			err error
		}
		answers := make(chan answer)
		for range 2 {
			go func() {
				b, err := s.Next(-1)
				if err == nil {
					publish(t, e, "camera", b) // the version before it comes free, for the other one
					b.Release()
				}
				answers <- answer{b, err}
			}()
		}
		awaitWaiters(t, s)
		reader.Release()
		for range 2 {
			require.NoError(t, (<-answers).err)
		}
	}
}

// awaitWaiters returns when somebody waits for a frame.
func awaitWaiters(t *testing.T, s *Stream) {
	t.Helper()
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.gone != nil
	}, time.Minute, time.Millisecond)
}

func TestWhoWaitsForAFrameHearsOfTheEnd(t *testing.T) {
	ends := map[string]func(*Engine){
		"closed":   func(e *Engine) { e.Close(0) },
		"poisoned": func(e *Engine) { e.Poison(guard.Catch("a test", func() { panic("a bug") })) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			e := open(t, Options{})
			s := openStream(t, e, 10, StreamOptions{Keep: 2})
			one, err := s.Next(0)
			require.NoError(t, err)
			defer one.Release()
			two, err := s.Next(0)
			require.NoError(t, err)
			defer two.Release()
			failures := make(chan error)
			go func() {
				_, err := s.Next(-1)
				failures <- err
			}()
			awaitWaiters(t, s)
			end(e)
			require.Equal(t, e.Check(), <-failures)
		})
	}
}

func TestTheOldestFrameIsLeftToItsReaders(t *testing.T) {
	for _, size := range sizes {
		e := open(t, Options{})
		s := openStream(t, e, size, StreamOptions{Keep: 2, DropOldest: true})
		var readers []*Snapshot
		for i := range 10 {
			show(t, s, float64(i))
			reader, err := e.Snapshot()
			require.NoError(t, err)
			readers = append(readers, reader)
		}
		require.LessOrEqual(t, len(s.frames), 2)
		for i, reader := range readers {
			b, err := reader.Get("camera")
			require.NoError(t, err)
			require.Equal(t, float64(i), at(t, b)[0])
			b.Release()
			reader.Release()
		}
		for i := range 10 { // what has come free takes no place either
			show(t, s, float64(i))
		}
	}
}

func TestAFrameThatTheHeapHasNoRoomForTakesNoPlace(t *testing.T) {
	e := open(t, Options{HeapBytes: 4 << 20})
	s := openStream(t, e, 1<<20, StreamOptions{Keep: 2})
	for range 5 {
		_, err := s.Next(0)
		require.ErrorContains(t, err, "camera")
		require.NotErrorAs(t, err, new(*StreamFullError))
	}
	require.Empty(t, s.frames)
}

// Several write frames at once while others read old ones: no frame changes once it is published, and never are more in use
// than are kept.
func TestFramesOfManyWritersAndReaders(t *testing.T) {
	const keep, writers, rounds = 4, 2, 300
	e := open(t, Options{})
	s := openStream(t, e, 100, StreamOptions{Keep: keep})
	show(t, s, 0)
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for i := range rounds {
				b, err := s.Next(-1)
				require.NoError(t, err)
				for j := range at(t, b) {
					at(t, b)[j] = float64(i)
				}
				publish(t, e, "camera", b)
				b.Release()
			}
		})
	}
	for range 2 {
		all.Go(func() {
			for range rounds {
				snap, err := e.Snapshot()
				require.NoError(t, err)
				b, err := snap.Get("camera")
				require.NoError(t, err)
				values := at(t, b)
				for _, value := range values {
					require.Equal(t, values[0], value)
				}
				b.Release()
				snap.Release()
				s.mu.Lock()
				require.LessOrEqual(t, len(s.frames), keep)
				s.mu.Unlock()
			}
		})
	}
	all.Wait()
	require.Len(t, s.frames, 1, "the current version")
}

func TestNoStreamOfNonsense(t *testing.T) {
	e := open(t, Options{})
	for message, try := range map[string]func() (*Stream, error){
		"at least 2 frames, not 1": func() (*Stream, error) { return e.OpenStream("k", floats(1), StreamOptions{Keep: 1}) },
		"a key":                    func() (*Stream, error) { return e.OpenStream("", floats(1), StreamOptions{Keep: 2}) },
		"cannot be negative":       func() (*Stream, error) { return e.OpenStream("k", floats(-1), StreamOptions{Keep: 2}) },
	} {
		_, err := try()
		require.ErrorAs(t, err, new(*ArgumentError))
		require.ErrorContains(t, err, message)
	}
	s, err := e.OpenStream("k", pool.Layout{Descr: "<f8", Itemsize: 8, Shape: []int64{0}}, StreamOptions{Keep: 2})
	require.NoError(t, err)
	b, err := s.Next(0)
	require.NoError(t, err)
	b.Release()
	e.Close(0)
	_, err = s.Next(-1)
	require.ErrorIs(t, err, ErrClosed)
	_, err = e.OpenStream("k", floats(1), StreamOptions{Keep: 2})
	require.ErrorIs(t, err, ErrClosed)
}
