package pool

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/theus-project/theus-go/internal/guard"
	"github.com/theus-project/theus-go/shm"
)

// Options of a pool. All but Heap and the worker program have usable zero values.
type Options struct {
	Name       string
	Python     string   // interpreter
	WorkerMain string   // the zygote's program
	Env        []string // of workers, "NAME=value"
	Cwd        string
	SysPath    []string
	Preload    []string
	Workers    int
	Threads    int // BLAS threads of one worker
	Seed       uint64
	Heap       *shm.Heap
	OnPanic    func(*guard.Panic) // a bug in one of the pool's goroutines
	// Pinned visits the arrays of old versions that tasks alone pin, each as often as the state holds it; nil: there are none.
	Pinned func(visit func(*Array))
	// WatchPeriod is the time between two looks at the workers (watch.go); 0: five seconds.
	WatchPeriod time.Duration
	// Locate fills in Python, WorkerMain and SysPath when WorkerMain is empty. It may take its time, until the context ends.
	Locate func(context.Context, *Options) error
}

// Errors that Submit returns.
var (
	ErrClosed   = errors.New("the engine is closed")
	ErrReleased = errors.New("it was released meanwhile, by another thread perhaps")
)

// BrokenError says why no worker can be started.
type BrokenError struct{ Cause string }

func (e *BrokenError) Error() string {
	return "worker processes cannot be started: " + e.Cause
}

const (
	readyTimeout  = 60 * time.Second       // of the zygote: preloading may take long
	spawnTimeout  = 10 * time.Second       // from SPAWN to READY
	stopTimeout   = 5 * time.Second        // how often it is looked whether what is not ready was stopped
	exitTimeout   = 5 * time.Second        // from the end of a worker's stream to EXITED
	closeTimeout  = 5 * time.Second        // for killed processes to be gone
	startAgain    = 100 * time.Millisecond // after a worker or zygote could not be started; where other workers go on twice as long each time,
	mostDoublings = 5                      // up to 3.2 s
	maxFailures   = 3                      // starts of a zygote in a row without success, then the pool is broken
	// The same for workers: they start in a millisecond, and something may be killing processes at random.
	maxWorkerFailures = 10
)

// Pool runs tasks in worker processes. See doc.go for who guards what.
type Pool struct {
	options Options

	mu       sync.Mutex // guards all below, and what the other files of the package say
	deferred []func()   // to be run once mu is unlocked

	oom        *shm.OOMKills // has a lock of its own
	reactor    *reactor
	background sync.WaitGroup // goroutines that start processes
	// Ends when Close begins to end things: what Locate waits for is then not wanted any more.
	locating       context.Context
	giveUpLocating context.CancelFunc
	zygote         *zygote
	workers        []*worker // by index; nil while there is none
	lacking        []int     // by index: tries in a row to start a worker that failed

	queue      []*Task // waiting, oldest first
	tasks      map[uint64]*Task
	holders    map[*Task]struct{} // of tasks, those that refer to shared memory themselves, beside their version
	lastTask   uint64
	lastFn     uint64
	lastWorker uint64
	targets    map[string]*Function // functions of C callers, by name
	idlers     []chan struct{}      // closed when no task is left
	// Tasks that are not in tasks any more, and whose end is not announced yet.
	unannounced int
	freed       chan struct{} // closed when memory may have come back; nil: nobody waits

	round     *time.Timer // of the watch; nil: none is due
	lastRound time.Time
	buried    int // processes whose end was settled

	started  bool
	closed   bool          // no new tasks
	closing  chan struct{} // closed, with mu held, when Close has waited for the tasks that were left: no new processes either
	ended    chan struct{} // closed when nothing is left
	broken   error         // why tasks cannot run
	failures int           // starts in a row without success
	counts   Counts

	logs     heldLogs
	logQueue *Queue
}

// Counts of tasks since the start.
type Counts struct {
	Done, Failed uint64
}

// New makes a pool; Start brings up its processes.
func New(options Options) (*Pool, error) {
	p := &Pool{
		options: options,
		oom:     shm.NewOOMKills("/"),
		workers: make([]*worker, options.Workers),
		lacking: make([]int, options.Workers),
		tasks:   map[uint64]*Task{},
		holders: map[*Task]struct{}{},
		targets: map[string]*Function{},
		closing: make(chan struct{}),
		ended:   make(chan struct{}),
	}
	var err error
	if p.reactor, err = newReactor(&p.mu, options.OnPanic); err != nil {
		return nil, err
	}
	p.locating, p.giveUpLocating = context.WithCancel(context.Background())
	return p, nil
}

// Start brings up the zygote and its workers in the background. Later calls do nothing.
func (p *Pool) Start() {
	p.mu.Lock()
	defer p.unlock()
	p.start()
}

func (p *Pool) start() {
	if p.started || p.closed {
		return
	}
	p.started = true
	p.spawn("reactor", p.react)
	p.inBackground("zygote start", p.startZygote)
}

// inBackground runs f in a goroutine that Close waits for. mu is held.
func (p *Pool) inBackground(where string, f func()) {
	p.background.Add(1)
	p.spawn(where, func() {
		defer p.background.Done()
		f()
	})
}

// forWorker is inBackground for what a worker has asked. False: the pool ends, and it needs no answer any more. mu is held.
func (p *Pool) forWorker(where string, f func()) bool {
	if p.Ending() { // Close may be waiting for the others already
		return false
	}
	p.inBackground(where, f)
	return true
}

// Ending tells whether the pool has begun to end. With mu held it stays as it is.
func (p *Pool) Ending() bool {
	select {
	case <-p.closing:
		return true
	default:
		return false
	}
}

// spawn runs f in a goroutine whose panic poisons the engine.
func (p *Pool) spawn(where string, f func()) {
	guard.Go(where, p.options.OnPanic, f)
}

// after puts f off until mu is unlocked. mu is held.
func (p *Pool) after(f func()) { p.deferred = append(p.deferred, f) }

// unlock releases mu and runs what was put off.
func (p *Pool) unlock() {
	deferred := p.deferred
	p.deferred = nil
	p.mu.Unlock()
	runAll(deferred)
}

// runAll runs each, in their order, also when one before panics: somebody may wait for the end of a task that is announced
// behind it.
func runAll(deferred []func()) {
	for _, f := range slices.Backward(deferred) {
		defer f()
	}
}
