package pool

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestFieldsComeBackAsTheyWereWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c, d := rapid.Byte().Draw(t, "u8"), rapid.Uint16().Draw(t, "u16"), rapid.Uint32().Draw(t, "u32"), rapid.Uint64().Draw(t, "u64")
		s := rapid.String().Draw(t, "str")
		var e encoder
		e.u8(a)
		e.u16(b)
		e.str(s)
		e.u32(c)
		e.u64(d)
		in := &decoder{buf: e.buf}
		require.Equal(t, a, in.u8())
		require.Equal(t, b, in.u16())
		require.Equal(t, s, in.str())
		require.Equal(t, c, in.u32())
		require.Equal(t, d, in.u64())
		require.NoError(t, in.end())
		short := &decoder{buf: e.buf[:rapid.IntRange(0, len(e.buf)-1).Draw(t, "cut")]}
		short.u8()
		short.u16()
		_ = short.str()
		short.u32()
		short.u64()
		require.ErrorIs(t, short.end(), errTruncated)
	})
}

func TestDecodersSurviveAnyBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")
		value := &decoder{buf: b}
		v := value.value()
		if value.err == nil {
			require.LessOrEqual(t, len(v.inline), len(b))
		}
		array := &decoder{buf: b}
		a := array.array()
		if array.err == nil {
			require.LessOrEqual(t, len(a.layout.Shape), MaxNDim)
			a.layout.within(a.offset, 1<<20)
		}
	})
}

func TestArraysMustLieInsideTheirSegment(t *testing.T) {
	for _, c := range []struct {
		shape, strides []int64
		offset         uint64
		inside         bool
	}{
		{[]int64{4}, []int64{8}, 0, true},
		{[]int64{4}, []int64{8}, 1, false},
		{[]int64{4}, []int64{-8}, 24, true},
		{[]int64{4}, []int64{-8}, 16, false},
		{[]int64{2, 2}, []int64{16, 8}, 0, true},
		{[]int64{5}, []int64{0}, 24, true},
		{[]int64{0}, []int64{math.MaxInt64}, 0, true},
		{[]int64{2}, []int64{math.MaxInt64}, 0, false},
		{[]int64{2}, []int64{math.MinInt64}, 0, false},
		{[]int64{math.MaxInt64, math.MaxInt64}, []int64{0, 0}, 0, false},
		{[]int64{-1}, []int64{8}, 0, false},
		{nil, nil, 24, true},
		{nil, nil, 25, false},
	} {
		l := Layout{Itemsize: 8, Shape: c.shape, Strides: c.strides}
		require.Equal(t, c.inside, l.within(c.offset, 32), "%+v", c)
	}
}

func TestTheSizeOfAnArrayIsCheckedNotWrapped(t *testing.T) {
	for _, shape := range [][]int64{{-1}, {1 << 32, 1 << 32}, {1 << 62, 2}} {
		_, err := (&Layout{Itemsize: 8, Shape: shape}).NBytes()
		require.Error(t, err, "%v", shape)
	}
	n, err := (&Layout{Itemsize: 8, Shape: []int64{1 << 40, 0}}).NBytes()
	require.NoError(t, err)
	require.Zero(t, n)
}

func TestAnEncodedArrayHasTheSizeThatIsReservedForIt(t *testing.T) {
	f := newFixture(t, 1, "zygote")
	a := f.array("some key", 1)
	defer a.Unref()
	var e encoder
	e.array(a, true, 0)
	require.Len(t, e.buf, arraySize(a))
	back := (&decoder{buf: e.buf}).array()
	require.Equal(t, a.Layout, back.layout)
	require.Equal(t, "some key", back.key)
}

func pair(t *testing.T) (*conn, *conn) {
	t.Helper()
	a, b, err := socketPair()
	require.NoError(t, err)
	left, right := &conn{fd: a, maxPayload: maxPayload}, &conn{fd: b, maxPayload: maxPayload}
	t.Cleanup(left.close)
	t.Cleanup(right.close)
	return left, right
}

func TestFramesAndTheirDescriptorsArriveInOrderThroughASmallSocket(t *testing.T) {
	left, right := pair(t)
	require.NoError(t, unix.SetsockoptInt(left.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4096))
	const n = 50
	payload := make([]byte, 5000)
	for i := range n {
		fd, err := unix.Eventfd(uint(i), unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		require.NoError(t, err)
		left.send(frameTask, uint64(i), payload, fd)
	}
	for got := 0; got < n; {
		left.flush()
		_, err := right.receive()
		require.NoError(t, err)
		for {
			f, err := right.next()
			require.NoError(t, err)
			if f == nil {
				break
			}
			require.Equal(t, uint64(got), f.id)
			require.Len(t, f.payload, len(payload))
			var count [8]byte
			_, _ = unix.Read(f.fds[0], count[:])
			require.Equal(t, byte(got), count[0], "the descriptor belongs to its frame")
			closeAll(f.fds)
			got++
		}
	}
	require.Empty(t, left.out)
}

func TestWhatADeadPeerSentIsStillRead(t *testing.T) {
	left, right := pair(t)
	left.send(frameResult, 1, []byte("finished"))
	right.send(frameTask, 2, nil) // unread by left: its death makes a reset
	left.close()
	right.send(frameTask, 3, nil)
	require.True(t, right.broken)
	_, err := right.receive()
	require.NoError(t, err)
	for f, _ := right.next(); f == nil; f, _ = right.next() {
		_, err := right.receive()
		require.NoError(t, err, "the frame comes before the end")
	}
}

func TestAFrameThatAnnouncesTooMuchIsRefused(t *testing.T) {
	left, right := pair(t)
	left.maxPayload = 1 << 30
	left.send(frameTask, 1, make([]byte, maxPayload+1))
	_, err := right.receive()
	require.NoError(t, err)
	_, err = right.next()
	require.ErrorContains(t, err, "announces")
}
