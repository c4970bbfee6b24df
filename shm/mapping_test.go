//go:build linux

package shm

import (
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// allowMappings lets the package have n more mappings, for one test.
func allowMappings(t *testing.T, n int64) {
	before := mappings.most
	t.Cleanup(func() { mappings.most = before })
	mappings.most = mappings.count.Load() + n
}

func TestTooManyMappingsIsAnErrorBeforeTheKernelRefuses(t *testing.T) {
	h := heapFor(t)
	assert.Equal(t, maxMappings()/4, mappings.most)
	allowMappings(t, 0)
	_, err := h.Create(1, "one too many")
	var limit *LimitError
	require.ErrorAs(t, err, &limit)
	assert.Equal(t, "mappings", limit.What)
	require.ErrorIs(t, err, syscall.ENOMEM)
	assert.Contains(t, err.Error(), "vm.max_map_count")
	_, err = NewPage()
	require.ErrorAs(t, err, &limit)

	s, writer, _, err := h.Grant(1, "needs none")
	require.NoError(t, err)
	closeFD(writer)
	_, err = s.Readable()
	require.ErrorAs(t, err, &limit)
	_, _, err = s.PrivateMap()
	require.ErrorAs(t, err, &limit)
	s.Unref()
}

func TestFreezeWithoutRoomForItsMapsChangesNothing(t *testing.T) {
	h := heapFor(t)
	s := create(t, h, 1)
	for room := range int64(2) {
		allowMappings(t, room)
		if room == 1 && !h.features.DontUnmapMove {
			break
		}
		var limit *LimitError
		require.ErrorAs(t, s.Freeze(), &limit, "with room for %d more", room)
		w, writable := s.Writable()
		require.True(t, writable)
		view(w, 1)[0]++
	}
	allowMappings(t, 2)
	require.NoError(t, s.Freeze())
}

// Limits that hold for a whole process are tried in one of its own.
func TestLimitsOfTheProcess(t *testing.T) {
	watch(t)
	child := start(t, "limits")
	said, err := child.ends()
	require.NoError(t, err, said)
	lines := strings.Split(strings.TrimSpace(said), "\n")
	require.Len(t, lines, 4, said)
	assert.Contains(t, lines[0], "out of file size, the limit is 1048576")
	assert.Contains(t, lines[0], "ulimit -f")
	assert.Contains(t, lines[1], "0 free: shm: out of descriptors, the limit is 32")
	assert.Contains(t, lines[1], "ulimit -n")
	assert.Contains(t, lines[2], "1 free: shm: out of descriptors")
	assert.Equal(t, "0 bytes left, 0 mappings", lines[3])
}

func TestPanicsOnWrongBooks(t *testing.T) {
	l := &mapLimit{most: 1}
	require.NoError(t, l.reserve())
	l.release()
	assert.Panics(t, l.release)
	assert.Panics(t, func() { closeFD(-1) })
}
