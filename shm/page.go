package shm

import (
	"bytes"
	"errors"
	"sync"
	"syscall"
)

// PageSize is the size of a status page.
const PageSize = 4096

// Page is a page that one worker writes and the host reads: the worker's last
// word survives a SIGKILL.
type Page struct {
	mu   sync.RWMutex // so that nothing reads what Close has unmapped
	fd   int
	m    mapping
	last uint64
}

// textOffset is where the page's text begins. The word is at 0.
const textOffset = 64

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
		return &KernelError{Feature: "allocating a status page", Err: err, Advice: "no memory is left; let go of arrays, or give the process more"}
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
	return err
}

// FD is the page's descriptor, writable. It stays the page's own: send it, do
// not close it. After Close it is -1.
func (p *Page) FD() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.fd
}

// Load reads the word at offset 0 as the worker last stored it. After Close it
// gives the word as it was then.
func (p *Page) Load() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.m.addr == 0 {
		return p.last
	}
	return load64(p.m.addr)
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
	p.last = load64(p.m.addr)
	closeFD(p.fd)
	p.fd = -1
	p.m.close()
}
