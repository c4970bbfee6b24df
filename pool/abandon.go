//go:build failpoints

package pool

// Abandon drops a pool with nothing cleaned up, as if the code that owns it had vanished: no process is ended, nothing
// is closed and no reference given back; only nobody reads any more. What is left is for the kernel, when
// this process ends. For tests of exactly that.
func (p *Pool) Abandon() {
	p.stopReactor()
}
