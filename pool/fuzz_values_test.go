package pool

import (
	"math/big"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Values and descriptors as a worker sends them: whatever passes the checks lies inside its segment, and says so again
// when it is written anew.

func FuzzValue(f *testing.F) {
	for _, v := range []Value{
		{},
		{Codec: CodecRaw, Inline: [][]byte{[]byte("bytes")}},
		{Codec: CodecPickle, Inline: [][]byte{[]byte("pickle"), nil, []byte("buffer")}},
	} {
		var e encoder
		e.value(&v)
		f.Add(e.buf)
	}
	var e encoder
	e.u8(CodecPickle)
	e.u8(whereSegment)
	e.u16(2)
	e.u64(7)    // segment
	e.u64(4096) // its size
	for _, n := range []uint64{0, 4000, 4032, 64} {
		e.u64(n)
	}
	f.Add(e.buf)
	f.Add([]byte{CodecNone, whereSegment, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, payload []byte) {
		d := &decoder{buf: payload}
		v := d.value()
		if d.err != nil {
			return
		}
		require.LessOrEqual(t, v.codec, CodecPickle, "workers send no other codecs")
		if v.segmentID == 0 {
			require.Empty(t, v.spans, "spans of no segment")
			total := 0
			for _, s := range v.inline {
				total += len(s)
			}
			require.LessOrEqual(t, total, len(payload))
			require.Equal(t, v.codec == CodecNone, len(v.inline) == 0, "a value has bytes, nothing has none")
			var again encoder
			again.value(&Value{Codec: v.codec, Inline: v.inline})
			require.Equal(t, payload[:len(payload)-len(d.buf)], again.buf)
			return
		}
		require.Empty(t, v.inline)
		require.NotEqual(t, CodecNone, v.codec)
		require.NotEmpty(t, v.spans)
		for _, s := range v.spans {
			require.GreaterOrEqual(t, s.Offset+s.Len, s.Offset, "the end of a span turns over")
		}
	})
}

func FuzzArray(f *testing.F) {
	for _, l := range []Layout{
		{Descr: "<f8", Itemsize: 8, Shape: []int64{3, 4}, Strides: []int64{32, 8}},
		{Descr: "<f8", Itemsize: 8, Shape: []int64{4}, Strides: []int64{-8}},
		{Descr: "|V3", Itemsize: 3, Shape: []int64{0, 1 << 40}, Strides: []int64{0, 0}},
		{Descr: "|u1", Itemsize: 1},
		{Descr: "<c16", Itemsize: 16, Shape: []int64{1 << 40, 1 << 40}, Strides: []int64{0, 0}},
	} {
		f.Add(descriptorOf(&l), uint64(4096))
	}
	f.Fuzz(func(t *testing.T, payload []byte, size uint64) {
		d := &decoder{buf: payload}
		a := d.array()
		if d.err != nil {
			return
		}
		n, err := a.layout.NBytes()
		require.Equal(t, exactBytes(&a.layout), bytesOr(n, err), "%+v", a.layout)
		if a.layout.within(a.offset, size) {
			low, high := reach(&a.layout, a.offset)
			require.True(t, low.Sign() >= 0 && high.Cmp(new(big.Int).SetUint64(size)) <= 0,
				"bytes %v to %v of a segment of %d: %+v", low, high, size, a.layout)
		}
	})
}

// descriptorOf is a DESCRIPTOR in segment 7 at offset 64.
func descriptorOf(l *Layout) []byte {
	var e encoder
	for _, n := range []uint64{7, 4096, 64, 0, 1} { // segment, its size, offset, nbytes, version
		e.u64(n)
	}
	e.u32(uint32(l.Itemsize))
	e.u8(0) // has_fd
	e.u8(0) // flags
	e.u8(uint8(len(l.Shape)))
	e.u8(0)
	e.str(l.Descr)
	e.str("key")
	for _, numbers := range [][]int64{l.Shape, l.Strides} {
		for _, n := range numbers {
			e.u64(uint64(n))
		}
	}
	return e.buf
}

// exactBytes is NBytes by numbers without an end; -1: a shape that is refused.
func exactBytes(l *Layout) string {
	product, empty := new(big.Int).SetUint64(l.Itemsize), false
	for _, length := range l.Shape {
		switch {
		case length < 0:
			return "-1"
		case length == 0:
			empty = true
			continue
		}
		if product.Mul(product, big.NewInt(length)); product.Cmp(big.NewInt(1<<62)) > 0 {
			return "-1" // also of an array that another length makes empty
		}
	}
	if empty {
		return "0"
	}
	return product.String()
}

func bytesOr(n uint64, err error) string {
	if err != nil {
		return "-1"
	}
	return new(big.Int).SetUint64(n).String()
}

// reach gives the first byte that an array's elements touch, and the one behind the last, as offsets in the segment.
func reach(l *Layout, offset uint64) (low, high *big.Int) {
	low, high = new(big.Int).SetUint64(offset), new(big.Int).SetUint64(offset)
	if slices.Contains(l.Shape, 0) { // no elements, whatever the other axes say
		return low, high
	}
	for axis, length := range l.Shape {
		far := new(big.Int).Mul(big.NewInt(length-1), big.NewInt(l.Strides[axis]))
		if far.Sign() < 0 {
			low.Add(low, far)
		} else {
			high.Add(high, far)
		}
	}
	return low, high.Add(high, new(big.Int).SetUint64(l.Itemsize))
}
