package pool

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/theus-project/theus-go/internal/failpoint"
	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/shm"
	"golang.org/x/sys/unix"
)

// zygote is the process that forks workers. Guarded by Pool.mu, like worker.
type zygote struct {
	pool     *Pool
	conn     *conn
	token    uint64
	process  *os.Process
	pid      int           // process forgets it when it is released
	ended    chan struct{} // closed when the process is gone
	ready    bool
	proven   bool // a worker of it became ready
	failed   bool // lost already; a new one takes its place
	mode     string
	warnings []string
	timer    *time.Timer
	status   string // how it ended
}

// modeExec: workers are fresh interpreters, because the zygote has threads and must not fork.
const modeExec = "exec"

// startZygote brings up a zygote; its READY brings up the workers.
func (p *Pool) startZygote() {
	z, err := p.newZygote()
	p.mu.Lock()
	defer p.unlock()
	if p.Ending() {
		if z != nil {
			z.abandonUnread()
		}
		return
	}
	if err != nil {
		p.startAgainOrGiveUp(err)
		return
	}
	if z.token, err = p.reactor.add(z); err != nil {
		z.abandonUnread()
		p.startAgainOrGiveUp(fmt.Errorf("epoll_ctl: %w", err))
		return
	}
	p.zygote = z
	z.sendConfig()
	z.awaitReady(readyTimeout)
}

// awaitReady bounds the start. Importing may take long, but a stopped process imports nothing. mu is held.
func (z *zygote) awaitReady(left time.Duration) {
	z.within(min(left, stopTimeout), func() {
		switch {
		case z.ready:
		case stopped(z.pid):
			z.hung("it was stopped (SIGSTOP) before it was ready")
		case left <= stopTimeout:
			z.hung(fmt.Sprintf("it was not ready after %v; a module in preload may hang", readyTimeout))
		default:
			z.awaitReady(left - stopTimeout)
		}
	})
}

// startAgainOrGiveUp has a zygote started again in a moment, if what it lacked may be there by then. mu is held.
func (p *Pool) startAgainOrGiveUp(err error) {
	p.failures++
	if !scarce(err) || p.failures >= maxFailures {
		p.giveUp(withAdvice(err))
		return
	}
	guard.AfterFunc(startAgain, "zygote start", p.options.OnPanic, func() {
		p.mu.Lock()
		defer p.unlock()
		if !p.Ending() && p.broken == nil {
			p.inBackground("zygote start", p.startZygote)
		}
	})
}

// withAdvice is the text of an error, and of a lack of descriptors what to do about it.
func withAdvice(err error) string {
	limit := (*shm.LimitError)(nil)
	if !errors.As(err, &limit) && errors.As(shm.Refusal("", err), &limit) {
		return fmt.Sprintf("%v (%s)", err, limit.Advice)
	}
	return err.Error()
}

// scarce tells errors of a bad moment: others may give back what was lacking.
func scarce(err error) bool {
	for _, errno := range []unix.Errno{unix.EAGAIN, unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// abandonUnread ends a zygote that nothing was asked of. mu is held, by the goroutine that has started it.
func (z *zygote) abandonUnread() {
	z.kill()
	z.pool.after(func() { // still on this goroutine, which Close waits for
		z.awaitDeath(closeTimeout)
		z.pool.reactor.reading.Lock() // its end has the reactor read what is left
		defer z.pool.reactor.reading.Unlock()
		z.conn.close()
	})
}

func (p *Pool) newZygote() (*zygote, error) {
	o := &p.options
	if o.WorkerMain == "" && o.Locate != nil {
		if err := o.Locate(p.locating, o); err != nil {
			return nil, err
		}
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	args := slices.Concat([]string{o.Python}, interpreterFlags(o.Env), []string{o.WorkerMain, "3"})
	process, err := startProcess(o.Python, args, interpreterEnv(o.Env), theirs)
	if err != nil {
		_ = closeFD(ours)
		return nil, fmt.Errorf("%s: %w", o.Python, err)
	}
	z := &zygote{pool: p, conn: &conn{fd: ours, maxPayload: maxConfig}, process: process, pid: process.Pid, ended: make(chan struct{})}
	groups := p.oom.Watch(z.pid)
	p.spawn("zygote wait", func() {
		// ECHILD: someone in the host waits for all children and was faster; the end is what counts.
		state, err := waitProcess(process)
		ended := ""
		if err == nil {
			ended = p.describeEnd(unix.WaitStatus(state.Sys().(syscall.WaitStatus)), groups)
		}
		p.mu.Lock()
		if err != nil { // its descriptor would stay open; mu keeps those from it who would signal it
			_ = releaseProcess(process)
		}
		switch {
		case z.status != "": // it was ended, for that reason
		case err == nil:
			z.status = ended
		default:
			z.status = "ended"
		}
		close(z.ended)
		// The stream may stay open: a child that the host forked while the zygote was started holds its end.
		p.reactor.post(func() { _ = drain(z); z.lost(nil) })
		p.mu.Unlock()
	})
	return z, nil
}

func waitProcess(process *os.Process) (*os.ProcessState, error) {
	state, err := process.Wait()
	if said := failpoint.Fail(failpoint.PoolWaitProcess); said != nil {
		return nil, said
	}
	return state, err
}

func releaseProcess(process *os.Process) error { return process.Release() }

// describeEnd says how the zygote ended, for want of memory if that is so.
func (p *Pool) describeEnd(status unix.WaitStatus, groups shm.MemoryGroups) string {
	if status.Signaled() && status.Signal() == unix.SIGKILL {
		if oom, _ := p.oom.Claim(groups); oom != nil {
			return "was killed " + oom.String()
		}
	}
	return describeStatus(status)
}

func (z *zygote) sendConfig() {
	o := &z.pool.options
	env := map[string]string{}
	for _, kv := range o.Env {
		if name, value, ok := strings.Cut(kv, "="); ok {
			env[name] = value
		}
	}
	config, err := json.Marshal(map[string]any{
		"protocol": Protocol, "sys_path": o.SysPath, "cwd": o.Cwd, "env": env, "preload": o.Preload,
		"threads": o.Threads, "seed": o.Seed, "engine": o.Name, "parent": os.Getpid(),
	})
	if err != nil {
		z.pool.giveUp("the configuration cannot be encoded: " + err.Error())
		return
	}
	z.send(frameConfig, 0, config)
}

func (z *zygote) connection() *conn { return z.conn }

func (z *zygote) send(kind frameType, id uint64, payload []byte, fds ...int) {
	if z.conn.send(kind, id, payload, fds...) {
		z.pool.flushLater(z.conn, z.token)
	}
}

// within is like worker.within.
func (z *zygote) within(d time.Duration, f func()) {
	z.stopTimer()
	var timer *time.Timer
	timer = guard.AfterFunc(d, "zygote deadline", z.pool.options.OnPanic, func() {
		z.pool.mu.Lock()
		defer z.pool.unlock()
		if z.timer == timer {
			f()
		}
	})
	z.timer = timer
}

func (z *zygote) stopTimer() {
	if z.timer != nil {
		z.timer.Stop()
		z.timer = nil
	}
}

func (z *zygote) received(f *frame) error {
	d := &decoder{buf: f.payload}
	switch f.kind {
	case frameZygoteReady:
		closeAll(f.fds)
		return z.onReady(f.payload)
	case frameSpawned:
		return z.onSpawned(f, d)
	case frameSpawnFailed:
		closeAll(f.fds)
		reason := d.str()
		if err := d.end(); err != nil {
			return err
		}
		if w := z.worker(f.id); w != nil {
			w.notSpawned(reason)
		}
		return nil
	case frameExited:
		closeAll(f.fds)
		report := exitReport{pid: int(d.u32()), status: unix.WaitStatus(d.u32()), peakRSS: d.u64()}
		if err := d.end(); err != nil {
			return err
		}
		if w := z.worker(f.id); w != nil {
			w.gone(report)
		}
		return nil
	}
	closeAll(f.fds)
	return fmt.Errorf("the zygote sent a frame of unknown type %d", f.kind)
}

func (z *zygote) worker(id uint64) *worker {
	z.pool.mu.Lock()
	defer z.pool.mu.Unlock()
	for _, w := range z.pool.workers {
		if w != nil && w.id == id {
			return w
		}
	}
	return nil
}

func (z *zygote) onReady(payload []byte) error {
	var hello struct {
		PID      int      `json:"pid"`
		Mode     string   `json:"mode"`
		Warnings []string `json:"warnings"`
	}
	if err := json.Unmarshal(payload, &hello); err != nil {
		return err
	}
	p := z.pool
	p.mu.Lock()
	defer p.unlock()
	if z.failed || p.zygote != z { // it was given up, and is read to its end only now
		return nil
	}
	z.ready, z.mode = true, hello.Mode
	z.stopTimer()
	z.warnings = hello.Warnings
	for _, text := range hello.Warnings {
		p.log(LogRecord{Worker: -1, Level: 30, Logger: "theus", Message: text})
	}
	for i, w := range p.workers {
		if w == nil && !p.Ending() {
			p.launchOrGoOn(z, i)
		}
	}
	return nil
}

func (z *zygote) onSpawned(f *frame, d *decoder) error {
	pid := d.u32()
	err := d.end()
	if len(f.fds) > 1 {
		err = errors.Join(err, errors.New("SPAWNED has more than its pidfd"))
	}
	if err != nil {
		closeAll(f.fds)
		return err
	}
	w := z.worker(f.id)
	if w == nil {
		for _, pidfd := range f.fds {
			_ = pidfdKill(pidfd)
		}
		closeAll(f.fds)
		return nil
	}
	z.pool.mu.Lock()
	defer z.pool.mu.Unlock()
	if w.pidfd >= 0 || w.pidfdLost {
		closeAll(f.fds)
		return fmt.Errorf("SPAWNED of worker %d twice", w.index)
	}
	w.pid = int(pid)
	if len(f.fds) == 1 {
		w.pidfd = f.fds[0]
	} else { // it did not fit; the worker can do without until it has to be ended
		w.pidfdLost = true
	}
	if w.condemned || w.judged {
		w.kill()
	}
	return nil
}

// hung replaces a zygote that does not answer. mu is held.
func (z *zygote) hung(why string) {
	if z.failed {
		return
	}
	z.status = "was ended: " + why
	z.kill()
	z.pool.reactor.post(func() { z.lost(nil) })
}

func (z *zygote) kill() {
	if err := killProcess(z.process); err != nil && !errors.Is(err, os.ErrProcessDone) {
		z.conn.cut() // it ends when it finds the end of the stream
	}
}

// killProcess goes through a pidfd that os.Process has, so a reused pid is not hit.
func killProcess(process *os.Process) error {
	if err := failpoint.Fail(failpoint.PoolKillProcess); err != nil {
		return err
	}
	return process.Kill()
}

// lost is called by the reactor when the zygote's stream has ended: it is dead or will be. Its workers carry PDEATHSIG towards it and die as well.
func (z *zygote) lost(err error) {
	p := z.pool
	p.mu.Lock()
	defer p.unlock()
	if z.failed || p.Ending() || p.zygote != z {
		p.reactor.remove(z.conn, z.token)
		return
	}
	z.failed = true
	z.stopTimer()
	if err == nil {
		err = z.conn.fault
	}
	if err != nil && z.status == "" {
		z.status = "was ended: " + err.Error()
	}
	z.kill()
	p.reactor.remove(z.conn, z.token)
	var orphans []*worker
	for _, w := range p.workers {
		if w != nil && w.zygote == z {
			w.kill()
			orphans = append(orphans, w)
		}
	}
	if !z.proven {
		p.failures++
	}
	p.inBackground("zygote replacement", func() { p.replaceZygote(z, orphans) })
}

// replaceZygote waits until the old processes are gone, settles their tasks and starts anew.
func (p *Pool) replaceZygote(z *zygote, orphans []*worker) {
	z.awaitDeaths(orphans, closeTimeout)
	p.mu.Lock()
	settled := make(chan struct{})
	if !p.reactor.post(func() { defer close(settled); p.settleOrphans(orphans) }) {
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	select {
	case <-settled:
	case <-p.reactor.done: // a bug ended it before it came to that
	}

	p.mu.Lock()
	z.discard()
	p.buried++
	if p.zygote == z {
		p.zygote = nil
	}
	again := !p.Ending() && p.broken == nil
	if again && p.failures >= maxFailures {
		p.giveUp(fmt.Sprintf("the zygote %s (%s), %d times in a row; what it printed is on stderr", z.status, strings.Join([]string{p.options.Python, "-I", p.options.WorkerMain}, " "), p.failures))
		again = false
	}
	p.unlock()
	if again {
		p.startZygote()
	}
}

// settleOrphans judges workers that died with their zygote, on the reactor.
func (p *Pool) settleOrphans(orphans []*worker) {
	for _, w := range orphans {
		p.settleOrphan(w)
	}
}

func (p *Pool) settleOrphan(w *worker) {
	err := w.readRest()
	p.mu.Lock()
	defer p.unlock() // deferred: a task that was ended before a bug is met has its end announced
	w.unread(err)
	p.judge(w)
}

// awaitDeath waits until the process is gone.
func (z *zygote) awaitDeath(timeout time.Duration) {
	select {
	case <-z.ended:
	case <-time.After(max(timeout, 0)):
	}
}

// discard gives back what the host holds of it. mu is held.
func (z *zygote) discard() {
	z.stopTimer()
	z.pool.reactor.remove(z.conn, z.token)
	z.conn.close()
}
