package pool

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/theus-project/theus-go/shm"
)

// Codecs of values, equal to THEUS_CODEC_* in theus.h; state is internal.
const (
	CodecNone   uint8 = 0
	CodecRaw    uint8 = 1
	CodecJSON   uint8 = 2
	CodecPickle uint8 = 3
	CodecState  uint8 = 4
)

const (
	whereInline  = 0
	whereSegment = 1
	spanAlign    = 64
)

// MaxSpans bounds the spans of a value: a TASK that names as many, 16 bytes each, and a target of 1,024 bytes fit into a frame.
const MaxSpans = 4020

// Span is a byte range inside a value's segment.
type Span struct{ Offset, Len uint64 }

// Value is an encoded Python or C value: inline bytes, or spans of a segment when it is large.
// It holds one reference on its segment until Release.
type Value struct {
	Codec   uint8
	Inline  [][]byte
	Segment *shm.Segment
	Spans   []Span
}

// NewValue copies spans: small ones into memory of its own, large ones into a
// frozen segment, which workers map privately.
func NewValue(heap *shm.Heap, codec uint8, spans [][]byte, label string) (Value, error) {
	if len(spans) > MaxSpans {
		// A pickle with that many buffers is rare; one message explains it better than a torn frame.
		return Value{}, fmt.Errorf("a value has %d separate buffers, more than %d", len(spans), MaxSpans)
	}
	size := 0
	for _, s := range spans {
		size += 4 + len(s)
	}
	if size <= inlineLimit {
		v := Value{Codec: codec, Inline: make([][]byte, len(spans))}
		for i, s := range spans {
			v.Inline[i] = append([]byte(nil), s...)
		}
		return v, nil
	}
	return newSegmentValue(heap, codec, spans, label)
}

func newSegmentValue(heap *shm.Heap, codec uint8, spans [][]byte, label string) (Value, error) {
	v := Value{Codec: codec, Spans: make([]Span, len(spans))}
	offset := uint64(0)
	for i, s := range spans {
		v.Spans[i] = Span{Offset: offset, Len: uint64(len(s))}
		offset = (offset + uint64(len(s)) + spanAlign - 1) &^ (spanAlign - 1)
	}
	seg, err := heap.CreateUnzeroed(int64(offset), label)
	if err != nil {
		return Value{}, err
	}
	base, _ := seg.Writable()
	for i, s := range spans {
		copy(bytesAt(base+uintptr(v.Spans[i].Offset), len(s)), s)
	}
	if err := seg.Freeze(); err != nil {
		seg.Unref()
		return Value{}, err
	}
	v.Segment = seg
	return v, nil
}

// Release gives the segment back, if there is one.
func (v *Value) Release() {
	if v.Segment != nil {
		v.Segment.Unref()
		v.Segment = nil
	}
}

// Size is the number of payload bytes.
func (v *Value) Size() uint64 {
	n := uint64(0)
	for _, s := range v.Inline {
		n += uint64(len(s))
	}
	for _, s := range v.Spans {
		n += s.Len
	}
	return n
}

func (e *encoder) value(v *Value) {
	e.u8(v.Codec)
	if v.Segment == nil {
		e.u8(whereInline)
		e.u16(uint16(len(v.Inline)))
		for _, s := range v.Inline {
			e.u32(uint32(len(s)))
		}
		for _, s := range v.Inline {
			e.buf = append(e.buf, s...)
		}
		return
	}
	e.u8(whereSegment)
	e.u16(uint16(len(v.Spans)))
	e.u64(v.Segment.ID())
	e.u64(uint64(v.Segment.Size()))
	for _, s := range v.Spans {
		e.u64(s.Offset)
		e.u64(s.Len)
	}
}

// wireValue is a value as a worker sent it: its segment is only a number still.
type wireValue struct {
	codec     uint8
	inline    [][]byte
	segmentID uint64
	spans     []Span
}

func (d *decoder) value() wireValue {
	v := wireValue{codec: d.u8()}
	where, n := d.u8(), int(d.u16())
	switch {
	case d.err != nil || n > MaxSpans:
		d.err = errTruncated
	case v.codec > CodecPickle:
		d.err = fmt.Errorf("a value has the unknown codec %d", v.codec)
	case (n == 0) != (v.codec == CodecNone):
		d.err = fmt.Errorf("a value of codec %d has %d parts", v.codec, n)
	case where == whereInline:
		lengths := make([]int, n)
		for i := range lengths {
			lengths[i] = int(d.u32())
		}
		for _, length := range lengths {
			v.inline = append(v.inline, append([]byte(nil), d.take(length)...))
		}
	case where == whereSegment:
		v.segmentID = d.u64()
		if (v.segmentID == 0 || n == 0) && d.err == nil {
			d.err = errors.New("a value lies in segment 0, or nothing does in a segment")
		}
		size := d.u64()
		for range n {
			s := Span{Offset: d.u64(), Len: d.u64()}
			if s.Offset > size || s.Len > size-s.Offset {
				d.err = fmt.Errorf("a span reaches over the end of segment %d", v.segmentID)
			}
			v.spans = append(v.spans, s)
		}
	default:
		d.err = fmt.Errorf("a value is at an unknown place %d", where)
	}
	return v
}

// bytesAt views mapped memory as a slice, for one copy. The address is not Go
// memory: it comes from mmap, so the garbage collector does not care.
func bytesAt(addr uintptr, n int) []byte {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&addr))), n)
}
