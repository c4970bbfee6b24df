//go:build linux

package shm

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// modelled is a real segment and what it should be.
type modelled struct {
	s       *Segment
	kind    state // as made
	frozen  bool
	content byte
	refs    int
	remotes int
	writer  int // a granted segment's, -1 once closed
}

// Random lives of real segments: whatever the order, content is what was written before
// the freeze, OnDrop comes once, and the books are a sum.
func TestLivesOfSegments(t *testing.T) {
	watch(t)
	leases := Probe().Leases
	var recycled uint64
	rapid.Check(t, func(t *rapid.T) {
		drops := map[uint64]int{}
		h := NewHeap(HeapOptions{OnDrop: func(s *Segment) { drops[s.ID()]++ }})
		defer h.Close()
		var all []*modelled
		defer func() {
			recycled += h.Stats().Recycled
			for _, m := range all {
				m.end()
			}
		}()
		add := func(t *rapid.T) {
			m := &modelled{refs: 1, writer: -1, kind: rapid.SampledFrom([]state{building, live, granted}).Draw(t, "kind")}
			size := rapid.Int64Range(1, 20_000).Draw(t, "size")
			var err error
			switch m.kind {
			case building:
				m.s, err = h.Create(size, "x")
				require.NoError(t, err)
				require.Zero(t, bytes.Trim(view(m.s.Address(), m.s.Size()), "\x00"), "whatever its memory was before")
			case live:
				m.s, err = h.CreateLive(size, "x")
			default:
				m.s, m.writer, _, err = h.Grant(size, "x")
			}
			require.NoError(t, err)
			all = append(all, m)
		}
		// with does something to a segment of which want holds. If there is none it adds one,
		// since rapid gives up when too many actions in a row are skipped.
		with := func(t *rapid.T, want func(*modelled) bool, do func(*modelled)) {
			var some []*modelled
			for _, m := range all {
				if want(m) {
					some = append(some, m)
				}
			}
			if len(some) == 0 {
				add(t)
				return
			}
			do(rapid.SampledFrom(some).Draw(t, "segment"))
		}
		held := func(m *modelled) bool { return m.refs > 0 }
		t.Repeat(map[string]func(*rapid.T){
			"add": add,
			"write": func(t *rapid.T) {
				with(t, func(m *modelled) bool { return held(m) && m.kind != granted }, func(m *modelled) {
					view(m.s.Address(), 1)[0]++
					view(m.s.Address(), m.s.Size())[m.s.Size()-1]++
					if !m.frozen {
						m.content++
					}
				})
			},
			"freeze": func(t *rapid.T) {
				with(t, held, func(m *modelled) {
					err := m.s.Freeze()
					switch {
					case m.kind == granted && !m.frozen:
						require.ErrorIs(t, err, ErrNotAdopted)
					default:
						require.NoError(t, err)
						m.frozen = m.kind != live
					}
				})
			},
			"adopt": func(t *rapid.T) {
				with(t, func(m *modelled) bool { return leases && held(m) && m.kind == granted }, func(m *modelled) {
					err := m.s.Adopt()
					if m.writer >= 0 {
						require.ErrorIs(t, err, ErrStillWritten)
						return
					}
					require.NoError(t, err)
					m.frozen = true
				})
			},
			"writer closes": func(t *rapid.T) {
				with(t, func(m *modelled) bool { return m.writer >= 0 }, func(m *modelled) {
					closeFD(m.writer)
					m.writer = -1
				})
			},
			"copy": func(t *rapid.T) {
				with(t, held, func(m *modelled) {
					s, err := h.Copy(m.s, "copy")
					require.NoError(t, err)
					all = append(all, &modelled{s: s, kind: building, frozen: true, content: m.content, refs: 1, writer: -1})
				})
			},
			"ref": func(t *rapid.T) {
				with(t, held, func(m *modelled) {
					m.s.Ref()
					m.refs++
				})
			},
			"unref": func(t *rapid.T) {
				with(t, held, func(m *modelled) {
					m.refs--
					m.s.Unref()
				})
			},
			"add remote": func(t *rapid.T) {
				with(t, held, func(m *modelled) {
					m.s.AddRemote()
					m.remotes++
				})
			},
			"done remote": func(t *rapid.T) {
				with(t, func(m *modelled) bool { return m.remotes > 0 }, func(m *modelled) {
					m.remotes--
					m.s.DoneRemote()
				})
			},
			"": func(t *rapid.T) {
				var want HeapStats
				for _, m := range all {
					switch {
					case m.refs > 0:
						want.Segments++
						want.InUse += uint64(m.s.Size())
						r, err := m.s.Readable()
						require.NoError(t, err)
						assert.Equal(t, m.content, view(r, 1)[0])
						_, writable := m.s.Writable()
						assert.Equal(t, m.kind != granted && !m.frozen, writable)
						assert.Zero(t, drops[m.s.ID()])
					case m.remotes > 0:
						want.Retiring++
						want.RetiringBytes += uint64(m.s.Size())
						want.InUse += uint64(m.s.Size())
						fallthrough
					default:
						assert.Equal(t, 1, drops[m.s.ID()])
					}
				}
				got := h.Stats()
				want.Limit, want.FreeList, want.Recycled = got.Limit, got.FreeList, got.Recycled
				assert.Equal(t, want, got)
			},
		})
	})
	if Probe().WriteLeases {
		require.NotZero(t, recycled)
	}
}

// end lets go of everything that the model still holds.
func (m *modelled) end() {
	for ; m.refs > 0; m.refs-- {
		m.s.Unref()
	}
	for ; m.remotes > 0; m.remotes-- {
		m.s.DoneRemote()
	}
	if m.writer >= 0 {
		closeFD(m.writer)
	}
}
