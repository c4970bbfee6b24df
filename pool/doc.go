// Package pool runs tasks in worker processes.
//
// # Who is who
//
//	Pool ──► zygote ──fork──► worker 0 … n-1
//	  │                          ▲
//	  └── one stream socket and one page per worker: two rings and the status page
//
// The pool starts one zygote, a Python process that has imported what workers need and forks them. It
// talks to each worker over a socket of its own and the rings beside it, in the frames of docs/internals.md
// (wire.go, value.go, array.go encode them; conn.go moves them, reactor.go reads them; answers.go and requests.go handle
// what workers send).
//
// # Life of a task
//
//	Submit → queued → sent to a worker → ended (result, failure, crash, timeout, cancel)
//
// A worker holds one task, and one or two more that are sent ahead while all belong to functions that are known to be short. A
// task ends exactly once, in finish. When a worker dies, its status page tells which task it had
// started: that one ends as crashed, those behind it go back to the head of the queue.
//
// # Concurrency
//
// One goroutine, the reactor, waits on all sockets and reads; beside it read callers that look for the end of their own task
// (look.go), one at a time. Pool.mu guards all else: workers, queue, tasks, and the outgoing buffers. Nothing under Pool.mu blocks: writes are
// non-blocking and buffered, allocation happens outside. What must not run under the lock, because it
// may come back into the pool (dropping a segment does), is put off with Pool.after and
// run by Pool.unlock.
//
// # Death
//
// The zygote carries PR_SET_PDEATHSIG and is started from a thread that never ends (spawn.go); workers
// carry it towards the zygote. The zygote's EXITED frames are the authoritative reports; signals go through pidfds, so
// a reused pid is never hit.
package pool
