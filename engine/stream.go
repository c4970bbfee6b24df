package engine

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/theus-project/theus-go/pool"
)

// Stream makes the versions of one key, each in memory of its own, and at most so many at once: it waits for the readers of
// older ones, or leaves these out of account. What somebody still reads is never written again in either case.
type Stream struct {
	engine  *Engine
	key     string
	layout  pool.Layout
	options StreamOptions

	mu     sync.Mutex    // guards the rest
	frames []*frame      // that are in use and count, the oldest first
	gone   chan struct{} // closed when one of them goes; made by who waits for that
}

// StreamOptions say how many frames there are.
type StreamOptions struct {
	Keep       int  // frames in use at once, the current version and those under construction included; at least 2
	DropOldest bool // when so many are in use, the oldest counts no longer; otherwise Next waits
}

// frame is a place in a stream.
type frame struct{ buf *Buf } // nil while it is being made

// fewestFrames are the current version and its successor.
const fewestFrames = 2

// OpenStream makes a stream of versions of key, none of which exist yet.
func (e *Engine) OpenStream(key string, layout pool.Layout, o StreamOptions) (*Stream, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	if err := checkNamed(key); err != nil {
		return nil, err
	}
	if _, err := layout.NBytes(); err != nil {
		return nil, &ArgumentError{err.Error()}
	}
	if o.Keep < fewestFrames {
		return nil, &ArgumentError{fmt.Sprintf("a stream keeps at least %d frames, not %d: the current version, and the one that is being written", fewestFrames, o.Keep)}
	}
	layout.Shape = slices.Clone(layout.Shape)
	return &Stream{engine: e, key: key, layout: layout, options: o}, nil
}

// Next gives the next frame, zeroed, under construction. Errors as of Alloc, and a *StreamFullError when as many as are
// kept are in use until the timeout (< 0: none).
func (s *Stream) Next(timeout time.Duration) (*Buf, error) {
	place, err := s.awaitPlace(timeout)
	if err != nil {
		return nil, err
	}
	b, err := s.engine.Alloc(s.key, s.layout, AllocOptions{})
	if err != nil {
		s.remove(place)
		return nil, err
	}
	b.array.OnGone(func() { s.remove(place) })
	s.mu.Lock()
	place.buf = b
	s.mu.Unlock()
	return b, nil
}

// awaitPlace waits until fewer frames are in use than are kept, and takes a place among them.
func (s *Stream) awaitPlace(timeout time.Duration) (*frame, error) {
	var expired <-chan time.Time
	if timeout >= 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	for {
		if err := s.engine.Check(); err != nil {
			return nil, err
		}
		place, gone := s.take()
		if place != nil {
			return place, nil
		}
		select {
		case <-gone:
		case <-s.engine.ended:
		case <-expired:
			return nil, s.full()
		}
	}
}

// take takes a place, or gives what is closed when there may be one.
func (s *Stream) take() (*frame, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.frames) >= s.options.Keep {
		if !s.options.DropOldest {
			if s.gone == nil {
				s.gone = make(chan struct{})
			}
			return nil, s.gone
		}
		s.frames = s.frames[1:]
	}
	place := &frame{}
	s.frames = append(s.frames, place)
	return place, nil
}

// remove gives up a place: nobody has its frame any more.
func (s *Stream) remove(place *frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.frames, place)
	if i < 0 { // it did not count any more
		return
	}
	s.frames = slices.Delete(s.frames, i, i+1)
	if s.gone != nil {
		close(s.gone)
		s.gone = nil
	}
}

// full says what is in use.
func (s *Stream) full() error {
	failure := &StreamFullError{Key: s.key, Versions: []uint64{}}
	for _, b := range s.bufs() {
		if version := b.publishedIn(); version != 0 {
			failure.Versions = append(failure.Versions, version)
		} else {
			failure.Building++
		}
	}
	return failure
}

// bufs lists the frames in use, nil for one that is being made. Their own locks are taken after mu has been given back: what
// one of them holds when it lets go of memory ends in remove.
func (s *Stream) bufs() []*Buf {
	s.mu.Lock()
	defer s.mu.Unlock()
	var bufs []*Buf
	for _, place := range s.frames {
		bufs = append(bufs, place.buf)
	}
	return bufs
}

// publishedIn is the version that published the array; 0: none has.
func (b *Buf) publishedIn() uint64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.version
}

// StreamFullError says that a stream's frames are all in use.
type StreamFullError struct {
	Key      string   `json:"key"`
	Versions []uint64 `json:"versions"` // that somebody has
	Building int      `json:"building"` // frames that are not published yet
}

func (e *StreamFullError) Error() string {
	all := len(e.Versions) + e.Building
	var parts []string
	for _, version := range e.Versions {
		parts = append(parts, fmt.Sprintf("version %d", version))
	}
	if e.Building > 0 {
		parts = append(parts, fmt.Sprintf("%d under construction", e.Building))
	}
	return fmt.Sprintf("the stream of heavy[%q] keeps %d frames, and all are in use: %s. One comes free when no task, snapshot or view has it any more",
		e.Key, all, strings.Join(parts, ", "))
}
