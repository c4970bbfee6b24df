package pool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/theus-project/theus-go/internal/failpoint"
	"golang.org/x/sys/unix"
)

// conn moves frames over one end of a stream socket pair without ever blocking. Beside the socket of a worker there are the rings of
// its page: a short frame for a worker that looks at its ring costs no system call.
//
// The outgoing half is guarded by Pool.mu, the incoming half by reactor.reading.
type conn struct {
	fd         int
	maxPayload int
	rings      rings // nil: there are none

	out      []outgoing
	sent     uint64 // bytes that the socket has taken
	broken   bool   // frames are dropped; what the peer sent can still be read
	fault    error  // why, if the peer is not just gone
	crowded  bool   // the kernel lacks room, for descriptors say: the socket is writable, but not for the head of out
	retrying bool   // a timer is armed that flushes it

	in        []byte
	received  atomic.Uint64 // bytes of the socket; also read by who looks for more
	consumed  uint64        // of these, those whose frames next has given
	inFDs     []int
	truncated bool // this process had no descriptor left for those that came
}

// rings carry short frames beside the socket; see shm.Page.
type rings interface {
	Put(mark uint64, message []byte) bool
	Take(consumed uint64) ([]byte, error)
	PeerLooks() bool
	Sent(bytes uint64)
}

// outgoing is one frame, or what is left of one. Its descriptors ride on its
// first byte and are closed once that byte is on its way.
type outgoing struct {
	data []byte
	fds  []int
}

// linkError says that the kernel does not let us talk to a peer that is there.
type linkError struct {
	call string
	err  error
}

func (e *linkError) Error() string { return e.call + ": " + e.err.Error() }
func (e *linkError) Unwrap() error { return e.err }

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = closeFD(fd)
	}
}

// closeFD closes a descriptor; on Linux it is gone whatever close says.
func closeFD(fd int) error {
	err := unix.Close(fd)
	if said := failpoint.Fail(failpoint.PoolClose); said != nil {
		return said
	}
	return err
}

func newFrame(kind frameType, id uint64, payload []byte, nfds int) []byte {
	b := make([]byte, headerSize, headerSize+len(payload))
	binary.LittleEndian.PutUint32(b[0:], uint32(len(payload)))
	binary.LittleEndian.PutUint16(b[4:], uint16(kind))
	binary.LittleEndian.PutUint16(b[6:], uint16(nfds))
	binary.LittleEndian.PutUint64(b[8:], id)
	return append(b, payload...)
}

// send queues a frame and writes as much as the socket takes. It owns fds from here on. It
// returns true when something is left that waits for the socket to be writable.
func (c *conn) send(kind frameType, id uint64, payload []byte, fds ...int) (pending bool) {
	if c.broken || c.fd < 0 {
		closeAll(fds)
		return false
	}
	frame := newFrame(kind, id, payload, len(fds))
	if c.rings != nil && len(fds) == 0 && len(c.out) == 0 && c.rings.PeerLooks() && c.rings.Put(c.sent, frame) {
		if c.rings.PeerLooks() {
			return false
		}
		frame = newFrame(frameWake, 0, nil, 0) // it may have gone to sleep before it could see that
	}
	c.out = append(c.out, outgoing{frame, fds})
	return c.flush()
}

// flush writes what waits. A broken connection drops it: the reader learns of the end.
func (c *conn) flush() (pending bool) {
	c.crowded = false
	for len(c.out) > 0 && !c.broken {
		head := &c.out[0]
		var rights []byte
		if len(head.fds) > 0 {
			rights = unix.UnixRights(head.fds...)
		}
		n, err := sendmsg(c.fd, head.data, rights)
		switch {
		case err == nil:
			closeAll(head.fds)
			head.fds = nil
			head.data = head.data[n:]
			c.wrote(n)
			if len(head.data) == 0 {
				c.out = c.out[1:]
			}
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return true
		case errors.Is(err, unix.ETOOMANYREFS), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
			// This user has too many descriptors in flight, in whatever process; they leave flight as their receivers read. Or
			// the kernel has no memory for the message.
			c.crowded = true
			return true
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
			c.cut()
		default:
			c.fault = &linkError{"sendmsg", err}
			c.cut()
		}
	}
	if len(c.out) == 0 {
		c.out = nil
	}
	return false
}

// wrote counts bytes, for the worker to see that there are some.
func (c *conn) wrote(n int) {
	c.sent += uint64(n)
	if c.rings != nil {
		c.rings.Sent(c.sent)
	}
}

func sendmsg(fd int, data, rights []byte) (int, error) {
	if err := failpoint.Fail(failpoint.PoolSendmsg); err != nil {
		return 0, err
	}
	return unix.SendmsgN(fd, data, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// cut ends both directions: the reader finds the end of the stream, after what had come, and so does the peer if it lives.
func (c *conn) cut() {
	c.discard()
	_ = shutdown(c.fd)
}

func shutdown(fd int) error {
	if err := failpoint.Fail(failpoint.PoolShutdown); err != nil {
		return err
	}
	return unix.Shutdown(fd, unix.SHUT_RDWR)
}

func (c *conn) discard() {
	c.broken = true
	for _, o := range c.out {
		closeAll(o.fds)
	}
	c.out = nil
}

// receive reads once what is there. io.EOF: the peer is gone and everything it sent has been read.
func (c *conn) receive() (more bool, err error) {
	const chunk = 64 << 10
	if cap(c.in)-len(c.in) < chunk {
		c.in = append(make([]byte, 0, len(c.in)+2*chunk), c.in...)
	}
	oob := make([]byte, unix.CmsgSpace(16*4))
	free := c.in[len(c.in):cap(c.in)]
	n, oobn, flags, err := recvmsg(c.fd, free, oob)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false, nil
	case errors.Is(err, unix.EINTR):
		return true, nil
	case errors.Is(err, unix.ECONNRESET):
		// The peer died with frames of ours unread. What it had sent before stays readable after the error is reported once.
		return true, nil
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
		return true, nil
	case err != nil:
		return false, &linkError{"recvmsg", err}
	case n == 0:
		return false, io.EOF
	}
	c.in = c.in[:len(c.in)+n]
	c.received.Add(uint64(n))
	if oobn > 0 {
		c.takeRights(oob[:oobn])
	}
	c.truncated = c.truncated || flags&unix.MSG_CTRUNC != 0
	return true, nil
}

func recvmsg(fd int, data, oob []byte) (n, oobn, flags int, err error) {
	if err := failpoint.Fail(failpoint.PoolRecvmsg); err != nil {
		return 0, 0, 0, err
	}
	n, oobn, flags, _, err = unix.Recvmsg(fd, data, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	return n, oobn, flags, err
}

func (c *conn) takeRights(oob []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		if failpoint.Fail(failpoint.PoolDescriptors) != nil {
			closeAll(fds)
			c.truncated = true
			continue
		}
		c.inFDs = append(c.inFDs, fds...)
	}
}

// next takes one whole frame off what has come; nil when there is none.
// Its payload is valid until the next receive.
func (c *conn) next() (*frame, error) {
	if c.rings != nil {
		message, err := c.rings.Take(c.consumed)
		switch {
		case err != nil:
			return nil, err
		case message != nil:
			return frameOf(message)
		}
	}
	return c.nextOfSocket()
}

// frameOf is the frame that a message of a ring is.
func frameOf(message []byte) (*frame, error) {
	if len(message) >= headerSize {
		if f, length, nfds := readHeader(message); length == len(message)-headerSize && nfds == 0 {
			f.payload = message[headerSize:]
			return f, nil
		}
	}
	return nil, fmt.Errorf("a message of %d bytes in a ring is no frame", len(message))
}

// readHeader gives a frame as its header has it, and how long its payload is and how many descriptors come with it.
func readHeader(b []byte) (f *frame, length, nfds int) {
	f = &frame{kind: frameType(binary.LittleEndian.Uint16(b[4:])), id: binary.LittleEndian.Uint64(b[8:])}
	return f, int(binary.LittleEndian.Uint32(b[0:])), int(binary.LittleEndian.Uint16(b[6:]))
}

func (c *conn) nextOfSocket() (*frame, error) {
	if len(c.in) < headerSize {
		if len(c.in) == 0 && len(c.inFDs) > 0 {
			return nil, c.unannounced(0)
		}
		return nil, nil
	}
	f, length, nfds := readHeader(c.in)
	if length > c.maxPayload {
		return nil, fmt.Errorf("a frame announces %d bytes, more than %d", length, c.maxPayload)
	}
	if len(c.in) < headerSize+length {
		// Nothing of a later frame has come, so these are all this one's. Kept, more and more of them would use up the host's.
		if len(c.inFDs) > nfds {
			return nil, c.unannounced(nfds)
		}
		return nil, nil
	}
	if nfds > len(c.inFDs) {
		if !c.truncated {
			return nil, fmt.Errorf("a frame announces %d descriptors, %d came", nfds, len(c.inFDs))
		}
		c.truncated, nfds = false, len(c.inFDs)
	}
	f.payload = c.in[headerSize : headerSize+length : headerSize+length]
	f.fds = c.inFDs[:nfds:nfds]
	c.in = c.in[headerSize+length:]
	c.consumed += uint64(headerSize + length)
	c.inFDs = c.inFDs[nfds:]
	return f, nil
}

func (c *conn) unannounced(announced int) error {
	return fmt.Errorf("%d descriptors came, and %d were announced", len(c.inFDs), announced)
}

// close gives everything back, frames that were never sent included.
func (c *conn) close() {
	if c.fd < 0 {
		return
	}
	c.discard()
	closeAll(c.inFDs)
	c.inFDs = nil
	_ = closeFD(c.fd)
	c.fd = -1
}

// socketPair makes the two ends of a channel: ours for the reactor, theirs to be sent or inherited.
func socketPair() (ours, theirs int, err error) {
	if err := failpoint.Fail(failpoint.PoolSocketpair); err != nil {
		return -1, -1, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, err
	}
	return fds[0], fds[1], nil
}
