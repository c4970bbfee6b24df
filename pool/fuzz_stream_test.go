package pool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// FuzzFrameStream writes any bytes, in any pieces and with any descriptors, to a connection. It gives the frames
// that a reader of the whole stream would find, or says why it does not, and keeps no descriptor.
//
// A script is a list of steps. Its first byte says what a step does; see streamStep.
func FuzzFrameStream(f *testing.F) {
	whole := newFrame(frameLog, 3, []byte("payload"), 0)
	f.Add(append([]byte{stepBytes, byte(len(whole))}, whole...))
	var cut []byte
	for _, b := range newFrame(frameReady, 1, []byte("12345678"), 0) {
		cut = append(cut, stepBytes, 1, b, stepRead)
	}
	f.Add(cut)
	f.Add([]byte{stepFrame, 4, 1, 1, 3, 0, stepFrame, 4, 2, 2, 0, 1, stepRead, stepFrame, 6, 0, 0, 255, 255})
	f.Add([]byte{stepFrame, 4, 3, 1, 1, 0, stepRead}) // fewer descriptors than it announces
	f.Add([]byte{stepFrame, 4, 1, 3, 1, 0, stepRead}) // more than it announces
	f.Add([]byte{stepBytes, 16, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{stepFrame, 4, 20, 20, 0, 0}) // more than one message can carry
	f.Fuzz(func(t *testing.T, script []byte) {
		s := newStream(t)
		defer s.close()
		for len(script) > 0 && s.failure == nil {
			script = s.step(script)
		}
		s.read()
		s.compare()
	})
}

const (
	stepBytes = iota // n, then n bytes: as they are
	stepFrame        // type, descriptors announced, descriptors sent, length u16: a frame
	stepRead         // the receiver reads what is there
	stepKinds
)

type stream struct {
	t        *testing.T
	sender   int
	receiver conn
	written  []byte // all that was sent
	got      []frame
	failure  error
	pipes    []int // the ends that stay here of descriptors that were sent
}

func newStream(t *testing.T) *stream {
	ours, theirs, err := socketPair()
	require.NoError(t, err)
	return &stream{t: t, sender: theirs, receiver: conn{fd: ours, maxPayload: maxPayload}}
}

func (s *stream) step(script []byte) (rest []byte) {
	arguments := script[1:]
	switch script[0] % stepKinds {
	case stepBytes:
		if len(arguments) == 0 {
			return nil
		}
		n := min(int(arguments[0]), len(arguments)-1)
		s.write(arguments[1:1+n], 0)
		return arguments[1+n:]
	case stepFrame:
		if len(arguments) < 5 {
			return nil
		}
		length := int(binary.LittleEndian.Uint16(arguments[3:]))
		kind, announced, sent := frameType(arguments[0]), int(arguments[1]), int(arguments[2])%32
		s.write(newFrame(kind, uint64(len(s.written)), make([]byte, length), announced), sent)
		return arguments[5:]
	}
	s.read()
	return arguments
}

func (s *stream) write(data []byte, fds int) {
	var rights []byte
	if fds > 0 && len(data) > 0 {
		ends := make([]int, fds)
		for i := range ends {
			var pipe [2]int
			require.NoError(s.t, unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
			ends[i] = pipe[0]
			s.pipes = append(s.pipes, pipe[1])
		}
		defer closeAll(ends)
		rights = unix.UnixRights(ends...)
	}
	for len(data) > 0 && s.failure == nil {
		n, err := unix.SendmsgN(s.sender, data, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EAGAIN) {
			s.read()
			continue
		}
		require.NoError(s.t, err)
		s.written = append(s.written, data[:n]...)
		data, rights = data[n:], nil
	}
}

func (s *stream) connection() *conn { return &s.receiver }
func (s *stream) lost(error)        {}
func (s *stream) received(f *frame) error {
	// Fewer, where the kernel has dropped what one message cannot carry.
	require.LessOrEqual(s.t, len(f.fds), int(binary.LittleEndian.Uint16(s.written[s.consumed()+6:])))
	s.got = append(s.got, frame{kind: f.kind, id: f.id, payload: append([]byte(nil), f.payload...)})
	closeAll(f.fds)
	return nil
}

// consumed is how many bytes the frames have that were given out.
func (s *stream) consumed() (n int) {
	for _, f := range s.got {
		n += headerSize + len(f.payload)
	}
	return n
}

func (s *stream) read() {
	for more := true; more && s.failure == nil; {
		var err error
		more, err = s.receiver.receive()
		require.NoError(s.t, err)
		s.failure = dispatchFrames(s)
	}
}

// compare finds in the bytes that were written what the receiver found, one frame after another.
func (s *stream) compare() {
	rest := s.written
	for _, f := range s.got {
		require.Equal(s.t, frameType(binary.LittleEndian.Uint16(rest[4:])), f.kind)
		require.Equal(s.t, binary.LittleEndian.Uint64(rest[8:]), f.id)
		length := int(binary.LittleEndian.Uint32(rest))
		require.True(s.t, bytes.Equal(rest[headerSize:headerSize+length], f.payload))
		rest = rest[headerSize+length:]
	}
	if s.failure == nil && len(rest) >= headerSize {
		require.Less(s.t, len(rest), headerSize+int(binary.LittleEndian.Uint32(rest)), "a whole frame was not given out")
	}
}

// close gives all back and proves that no descriptor that was sent is left: a pipe without a reader breaks.
func (s *stream) close() {
	_ = unix.Close(s.sender)
	s.receiver.close()
	for _, end := range s.pipes {
		_, err := unix.Write(end, []byte{1})
		require.ErrorIs(s.t, err, unix.EPIPE, "a descriptor was kept")
		_ = unix.Close(end)
	}
}
