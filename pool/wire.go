package pool

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Protocol is the version of docs/internals.md that both sides speak.
const Protocol = 5

// frameType numbers the frames; the table in docs/internals.md says what each carries.
type frameType uint16

const (
	frameConfig      frameType = 1
	frameZygoteReady frameType = 2
	frameSpawn       frameType = 3
	frameSpawned     frameType = 4
	frameSpawnFailed frameType = 5
	frameExited      frameType = 6

	frameReady     frameType = 16
	frameFunction  frameType = 17
	frameTask      frameType = 18
	frameFetch     frameType = 19
	frameFetched   frameType = 20
	frameAlloc     frameType = 21
	frameGranted   frameType = 22
	frameResult    frameType = 23
	frameFailed    frameType = 24
	frameLog       frameType = 25
	frameRetire    frameType = 26
	frameRetired   frameType = 27
	frameCancel    frameType = 29
	frameCancelled frameType = 30
	frameForget    frameType = 31
	frameCheck     frameType = 32
	frameChecked   frameType = 33
	frameWake      frameType = 34
)

const (
	headerSize = 16
	maxPayload = 64 << 10
	maxConfig  = 16 << 20
	// inlineLimit is how large a value may be to travel inside its frame; the rest of maxPayload is for the other fields.
	inlineLimit = 60_000
	// maxTaskDescriptors bounds the descriptors of one task besides its input
	// segment: the kernel limits descriptors in flight per user (ETOOMANYREFS).
	maxTaskDescriptors = 3
)

var errTruncated = errors.New("frame ends before its fields do")

// frame is one decoded message.
type frame struct {
	kind    frameType
	id      uint64
	payload []byte
	fds     []int
}

// encoder appends little-endian fields to a payload.
type encoder struct{ buf []byte }

func (e *encoder) u8(v uint8)   { e.buf = append(e.buf, v) }
func (e *encoder) u16(v uint16) { e.buf = binary.LittleEndian.AppendUint16(e.buf, v) }
func (e *encoder) u32(v uint32) { e.buf = binary.LittleEndian.AppendUint32(e.buf, v) }
func (e *encoder) u64(v uint64) { e.buf = binary.LittleEndian.AppendUint64(e.buf, v) }
func (e *encoder) str(s string) {
	e.u32(uint32(len(s)))
	e.buf = append(e.buf, s...)
}

// decoder takes them off again. The first field that does not fit sets err; later reads give zeros.
type decoder struct {
	buf []byte
	err error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.buf) {
		d.err = errTruncated
		return nil
	}
	b := d.buf[:n]
	d.buf = d.buf[n:]
	return b
}

func (d *decoder) u8() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if b := d.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) str() string { return string(d.take(int(d.u32()))) }

// end reports whether all fields were there and nothing follows them.
func (d *decoder) end() error {
	if d.err == nil && len(d.buf) != 0 {
		return fmt.Errorf("%d bytes follow the last field", len(d.buf))
	}
	return d.err
}
