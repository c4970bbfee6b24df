package engine

import (
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const largeBytes = 1 << 20

func large(t *testing.T, e *Engine) *Buf {
	t.Helper()
	b, err := e.Alloc("", floats(largeBytes/8), AllocOptions{})
	require.NoError(t, err)
	return b
}

// Another thread that allocates and releases must not change what a reap says was given back.
func TestAReapCountsWhatIsReleasedWhateverIsAllocatedMeanwhile(t *testing.T) {
	e := open(t, Options{})
	var kept []*Buf
	for range 10 {
		mine := large(t, e)
		r := e.Reap(func() {
			kept = append(kept, large(t, e), large(t, e)) // more than is given back
			mine.Release()
			e.ReleasedLater()
		})
		require.Equal(t, Reaped{Segments: 1, Bytes: largeBytes, Handles: 1}, r)
	}
	for _, b := range kept {
		b.Release()
	}
	require.Equal(t, Reaped{Segments: 30, Bytes: 30 * largeBytes, Handles: 10}, e.Reaped())
}

// The reports of reaps in several threads add up: nothing is in two of them, nothing is lost between them.
func TestReapsInSeveralThreadsReportEverythingOnce(t *testing.T) {
	e := open(t, Options{})
	var (
		all sync.WaitGroup
		mu  sync.Mutex
		sum Reaped
	)
	const threads, rounds = 4, 50
	for range threads {
		all.Go(func() {
			for range rounds {
				b, err := e.Alloc("", floats(largeBytes/8), AllocOptions{})
				if err != nil {
					panic(err)
				}
				r := e.Reap(func() { b.Release(); e.ReleasedLater() })
				mu.Lock()
				sum.Segments, sum.Bytes, sum.Handles = sum.Segments+r.Segments, sum.Bytes+r.Bytes, sum.Handles+r.Handles
				mu.Unlock()
			}
		})
	}
	all.Wait()
	require.Equal(t, Reaped{Segments: threads * rounds, Bytes: threads * rounds * largeBytes, Handles: threads * rounds}, sum)
	require.Equal(t, sum, e.Reaped())
}

func TestWhatCouldNotBeMadeIsNotGivenBack(t *testing.T) {
	e := open(t, Options{HeapBytes: 1 << 20})
	_, err := e.Alloc("", floats(1<<20), AllocOptions{})
	require.Error(t, err)
	require.Equal(t, Reaped{}, e.Reaped())
}

func TestStatsSayWhenTheReaperLastRan(t *testing.T) {
	e := open(t, Options{})
	read := func() (stats struct {
		Reaper struct {
			Segments, Bytes, Handles, Processes uint64
			LastRun                             *float64 `json:"last_run"`
		}
		Features map[string]bool
	}) {
		b, err := e.Stats()
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, &stats))
		return stats
	}
	require.Nil(t, read().Reaper.LastRun, "there was nothing to do yet")
	require.Len(t, read().Features, 7)
	before := float64(time.Now().UnixNano()) / 1e9
	b := large(t, e)
	e.Reap(func() { b.Release() })
	require.GreaterOrEqual(t, *read().Reaper.LastRun, before)
	require.Equal(t, uint64(largeBytes), read().Reaper.Bytes)
}
