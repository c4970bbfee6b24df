package shm

import (
	"bytes"
	"errors"
	"sync"
	"syscall"
)

// Page is the memory that the host and one worker have in common: a ring of messages in each direction (ring.go), and behind
// them the status page, a word and a text that the worker writes. What it wrote last survives a SIGKILL.
type Page struct {
	mu    sync.RWMutex // so that nothing reads what Close has unmapped
	fd    int
	m     mapping
	last  uint64
	rings rings
}

// Where things are in it. The text is last: it is written by descriptor, by a process that goes wrong, and ends where the file does.
const (
	hostRing   = 0
	workerRing = hostRing + ringSize
	wordOffset = workerRing + ringSize
	textOffset = wordOffset + 64

	// PageSize is the size of all of it.
	PageSize = wordOffset + 4096
)

// NewPage makes a zeroed page. It is not part of any heap's budget.
func NewPage() (*Page, error) {
	fd, sealable, err := newMemory()
	if err != nil {
		return nil, err
	}
	p := &Page{fd: fd}
	if err := p.prepare(sealable); err != nil {
		closeFD(fd)
		return nil, err
	}
	return p, nil
}

func (p *Page) prepare(sealable bool) (err error) {
	if err := resize(p.fd, PageSize); err != nil {
		return err
	}
	err = allocatePages(fallocate, p.fd, PageSize, nil, func(int64) {})
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.ENOMEM) {
		return &KernelError{Feature: "allocating the page that a worker shares with its host", Err: err, Advice: "no memory is left; let go of arrays, or give the process more"}
	}
	if err != nil {
		return err
	}
	if sealable {
		// Nobody can shrink it, which would make Load a SIGBUS.
		if err := seal(p.fd, sealSize|sealSeal); err != nil {
			return err
		}
	}
	p.m, err = makeMap(PageSize, func() (uintptr, error) { return mapShared(p.fd, PageSize, true) })
	p.rings = rings{own: p.m.addr + hostRing, peer: p.m.addr + workerRing}
	return err
}

// FD is the page's descriptor, writable. It stays the page's own: send it, do
// not close it. After Close it is -1.
func (p *Page) FD() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.fd
}

// Load reads the status word as the worker last stored it. After Close it
// gives the word as it was then.
func (p *Page) Load() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.m.addr == 0 {
		return p.last
	}
	return load64(p.m.addr + wordOffset)
}

// Text gives what the worker has written behind the word, up to the first NUL; "" after Close.
func (p *Page) Text() string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.m.addr == 0 {
		return ""
	}
	text := make([]byte, PageSize-textOffset)
	copyOut(text, p.m.addr+textOffset)
	if end := bytes.IndexByte(text, 0); end >= 0 {
		text = text[:end]
	}
	return string(text)
}

// Close unmaps the page and closes its descriptor. It may be called again.
func (p *Page) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.m.addr == 0 {
		return
	}
	p.last = load64(p.m.addr + wordOffset)
	closeFD(p.fd)
	p.fd = -1
	p.m.close()
}
