package pool

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/theus-project/theus-go/shm"
)

// MaxNDim is how many dimensions an array has at most.
const MaxNDim = 32

// Layout says how the bytes of an array are to be read.
type Layout struct {
	Descr    string // numpy's dtype descr, opaque here
	Itemsize uint64
	Shape    []int64
	Strides  []int64 // in bytes
}

// NBytes is the number of bytes of the elements, or an error when the shape is negative or overflows.
func (l *Layout) NBytes() (uint64, error) {
	n, empty := l.Itemsize, false
	for axis, length := range l.Shape {
		if length < 0 {
			return 0, fmt.Errorf("shape[%d] is %d; lengths cannot be negative", axis, length)
		}
		if length == 0 {
			empty = true
			continue
		}
		hi, lo := bits.Mul64(n, uint64(length))
		if hi != 0 || lo > 1<<62 {
			return 0, fmt.Errorf("shape %v with items of %d bytes is larger than any address space", l.Shape, l.Itemsize)
		}
		n = lo
	}
	if empty {
		return 0, nil
	}
	return n, nil
}

// Contiguous fills in the strides of a C-ordered (or Fortran-ordered) array.
func (l *Layout) Contiguous(fortran bool) {
	l.Strides = make([]int64, len(l.Shape))
	step := int64(l.Itemsize)
	for i := range l.Shape {
		axis := len(l.Shape) - 1 - i
		if fortran {
			axis = i
		}
		l.Strides[axis] = step
		step *= max(l.Shape[axis], 1)
	}
}

// Dense reports whether the elements lie in one piece, in C or Fortran order.
func (l *Layout) Dense() bool {
	other := Layout{Itemsize: l.Itemsize, Shape: l.Shape}
	other.Contiguous(false)
	if slices.Equal(other.Strides, l.Strides) {
		return true
	}
	other.Contiguous(true)
	return slices.Equal(other.Strides, l.Strides)
}

// within reports whether every element lies inside a segment of size bytes.
func (l *Layout) within(offset, size uint64) bool {
	if _, err := l.NBytes(); err != nil || offset > size || l.Itemsize > size {
		return false
	}
	low, high := int64(offset), int64(offset)
	for axis, length := range l.Shape {
		if length == 0 {
			return true
		}
		hi, lo := bits.Mul64(uint64(length-1), uint64(max(l.Strides[axis], -l.Strides[axis])))
		if hi != 0 || lo > size {
			return false
		}
		if l.Strides[axis] < 0 {
			low -= int64(lo)
		} else {
			high += int64(lo)
		}
	}
	return low >= 0 && uint64(high)+l.Itemsize <= size
}

// Array is an array in a segment. Whoever holds one holds a reference on the segment, so the array stays where it is.
type Array struct {
	Segment *shm.Segment
	Offset  uint64
	Slot    *shm.Slot // of a small array, of which a reference is held as well; nil: the segment is its own
	Key     string
	Version uint64
	Live    bool
	Output  bool // tasks that are given it write it, until it is published
	Layout  Layout
}

// InSlot is an array that takes all of a slot, whose reference it takes over.
func InSlot(slot *shm.Slot, key string, layout Layout) *Array {
	seg, offset := slot.Pin()
	return &Array{Segment: seg, Offset: uint64(offset), Slot: slot, Key: key, Layout: layout}
}

// Ref takes another reference and returns the same array.
func (a *Array) Ref() *Array {
	a.Segment.Ref()
	if a.Slot != nil {
		a.Slot.Ref()
	}
	return a
}

// Unref gives one back.
func (a *Array) Unref() {
	if a.Slot != nil {
		a.Slot.Unref()
	}
	a.Segment.Unref()
}

// open gives a descriptor for a worker: for reading, or of an output for writing.
func (a *Array) open() (int, error) {
	if a.Output {
		return a.Segment.WriterFD()
	}
	return a.Segment.ReaderFD()
}

// OnGone has f called when nobody has the array any more. Of whoever made it, before anyone else has it.
func (a *Array) OnGone(f func()) {
	if a.Slot != nil {
		a.Slot.OnGone(f)
	} else {
		a.Segment.OnGone(f)
	}
}

const (
	arrayLive     = 1
	arrayWritable = 2
	arrayOfKey    = 4 // its key means this array in the version that the task reads
)

// array appends a DESCRIPTOR; has: bits beside those that follow from the array.
func (e *encoder) array(a *Array, withFD bool, has uint8) {
	nbytes, _ := a.Layout.NBytes()
	e.u64(a.Segment.ID())
	e.u64(uint64(a.Segment.Size()))
	e.u64(a.Offset)
	e.u64(nbytes)
	e.u64(a.Version)
	e.u32(uint32(a.Layout.Itemsize))
	e.u8(flag(withFD, 1))
	e.u8(flag(a.Live, arrayLive) | flag(a.Output, arrayWritable) | has)
	e.u8(uint8(len(a.Layout.Shape)))
	e.u8(0)
	e.str(a.Layout.Descr)
	e.str(a.Key)
	for _, n := range a.Layout.Shape {
		e.u64(uint64(n))
	}
	for _, n := range a.Layout.Strides {
		e.u64(uint64(n))
	}
}

// arraySize is how many bytes array() appends.
func arraySize(a *Array) int {
	return 5*8 + 4 + 4 + 8 + len(a.Layout.Descr) + len(a.Key) + 16*len(a.Layout.Shape)
}

// wireArray is an array as a worker described it: its segment is only a number still.
type wireArray struct {
	segmentID uint64
	offset    uint64
	version   uint64 // that it was published in; 0: none yet
	key       string
	layout    Layout
}

func (d *decoder) array() wireArray {
	a := wireArray{segmentID: d.u64()}
	d.u64() // segment size: the host knows it
	a.offset = d.u64()
	d.u64() // nbytes follows from the shape
	a.version = d.u64()
	a.layout.Itemsize = uint64(d.u32())
	d.take(2) // has_fd, flags
	ndim := int(d.u8())
	d.u8()
	a.layout.Descr = d.str()
	a.key = d.str()
	if ndim > MaxNDim {
		d.err = fmt.Errorf("an array has %d dimensions, more than %d", ndim, MaxNDim)
		return a
	}
	for range ndim {
		a.layout.Shape = append(a.layout.Shape, int64(d.u64()))
	}
	for range ndim {
		a.layout.Strides = append(a.layout.Strides, int64(d.u64()))
	}
	return a
}

func flag(on bool, bit uint8) uint8 {
	if on {
		return bit
	}
	return 0
}
