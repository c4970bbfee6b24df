/* The public functions of theus.h. Each refuses a forked child before Go is
 * entered, defines its out-parameters, and calls the Go export of the same name.
 *
 * A fork copies only the calling thread. Trivial calls into Go would still work
 * in the child, the first that needs another goroutine would hang for ever; so the
 * check is made here, without Go. A page that the kernel wipes in the child tells, however the child was made: comparing
 * pids fails when parent and child are both pid 1 of their namespaces. Where a kernel before 4.14 or a sandbox
 * refuses such a page, a handler of the C library's fork() tells; a bare clone() is not seen then. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "theus.h"

#include "_cgo_export.h"

/* A host may have been started without standard streams, as daemons are. Their numbers would go to what is
 * opened next, shared memory say, and whatever anybody prints would be written into that. The constructor has a
 * priority so that it comes before the one that starts Go. */
__attribute__((constructor(101))) static void occupy_standard_descriptors(void) {
  for (int fd = 0; fd <= 2; fd++) {
    if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", O_RDWR | O_CLOEXEC) == -1) return;
  }
}

static volatile unsigned char *alive; /* 1 in the process that loaded the library, 0 in its children; or NULL */
static volatile unsigned char child_of_fork; /* 1 in a child that the C library's fork() has made */

__attribute__((constructor)) static void mark_this_process(void) {
  long size = sysconf(_SC_PAGESIZE);
  void *page =
      mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED || madvise(page, (size_t)size, MADV_WIPEONFORK) != 0) return;
  alive = page;
  *alive = 1;
}

/* Held by whoever starts a process from Go, and while this process forks: see pool.HostForks. */
static pthread_mutex_t forks = PTHREAD_MUTEX_INITIALIZER;

void shim_hold_forks(void) { pthread_mutex_lock(&forks); }
void shim_let_fork(void) { pthread_mutex_unlock(&forks); }

/* Differs if this process has forked meanwhile, or is about to: memory that a child maps is not used again. */
static _Atomic uint64_t times_forked;

unsigned long long shim_times_forked(void) { return times_forked; }

static void count_fork(void) { times_forked++; }

static void before_fork(void) {
  count_fork();
  shim_hold_forks();
}

/* Counted once more: between the two, while this process waits for its turn to fork, other threads may map memory that
 * the child then has as well. */
static void in_parent(void) {
  count_fork();
  shim_let_fork();
}

static void in_child(void) {
  child_of_fork = 1;
  shim_let_fork();
}

__attribute__((constructor)) static void order_forks(void) {
  pthread_atfork(before_fork, in_parent, in_child);
}

static void *pass(void *gate) {
  pthread_mutex_lock(gate);
  pthread_mutex_unlock(gate);
  return NULL;
}

/* How many of so many threads could be started just now, all at once. They take no signal of the host's. */
int shim_threads_left(int wanted) {
  pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
  pthread_t *threads = calloc((size_t)wanted, sizeof *threads);
  sigset_t all, before;
  int started = 0;
  if (threads == NULL) return 0;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_mutex_lock(&gate);
  while (started < wanted && pthread_create(&threads[started], NULL, pass, &gate) == 0) started++;
  pthread_mutex_unlock(&gate);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
  free(threads);
  return started;
}

/* Whether so many descriptors could be had just now, all at once. */
static int descriptors_left(int wanted) {
  int fds[8], had = 0;
  theusgo_version(); /* returns when Go has started, and has what it keeps of descriptors */
  while (had < wanted && (fds[had] = eventfd(0, EFD_CLOEXEC)) != -1) had++;
  for (int i = 0; i < had; i++) close(fds[i]);
  return had == wanted;
}

static int forked(void) { return child_of_fork || (alive != NULL && *alive == 0); }

static int32_t refuse(int32_t status, const char *message, theus_error *err) {
  if (err != NULL && err->struct_size >= sizeof *err) {
    err->code = status;
    err->detail = 0;
    strcpy(err->message, message);
  }
  return status;
}

static int32_t refuse_fork(theus_error *err) {
  return refuse(THEUS_EFORKED,
                "this process was forked from the one that loaded theus; a forked child cannot use "
                "it. Open the engine after forking, or start the child by exec (multiprocessing: "
                "the spawn or forkserver method)",
                err);
}

/* What Go may start before it has come as far as to look itself, and more. */
#define FIRST_THREADS 24

static int32_t refuse_threads(theus_error *err) {
  return refuse(THEUS_ELIMIT,
                "out of threads: the library needs 24 and fewer could be started; raise what is used up of ulimit -u, "
                "pids.max of the control group (docker --pids-limit) and ulimit -v, or end other processes",
                err);
}

/* Of Go's poller, without which the Go runtime ends the process; it is the first thing that is made. */
#define FIRST_DESCRIPTORS 2

static int32_t refuse_descriptors(theus_error *err) {
  return refuse(THEUS_ELIMIT,
                "out of descriptors: none are left to start the library with; close files and sockets, or raise the limit with "
                "`ulimit -n`",
                err);
}

uint32_t theus_abi_version(void) { return THEUS_ABI_VERSION; }

const char *theus_version(void) { return forked() ? "unknown" : theusgo_version(); }

const char *theus_status_name(int32_t status) {
  switch (status) {
    case THEUS_OK: return "THEUS_OK";
    case THEUS_EINVAL: return "THEUS_EINVAL";
    case THEUS_EBADF: return "THEUS_EBADF";
    case THEUS_ENOTFOUND: return "THEUS_ENOTFOUND";
    case THEUS_ECONFLICT: return "THEUS_ECONFLICT";
    case THEUS_EVERSION: return "THEUS_EVERSION";
    case THEUS_EPUBLISHED: return "THEUS_EPUBLISHED";
    case THEUS_EUNPUBLISHED: return "THEUS_EUNPUBLISHED";
    case THEUS_ECODEC: return "THEUS_ECODEC";
    case THEUS_ECLOSED: return "THEUS_ECLOSED";
    case THEUS_EFORKED: return "THEUS_EFORKED";
    case THEUS_ETIMEDOUT: return "THEUS_ETIMEDOUT";
    case THEUS_EPENDING: return "THEUS_EPENDING";
    case THEUS_EHEAP: return "THEUS_EHEAP";
    case THEUS_ELIMIT: return "THEUS_ELIMIT";
    case THEUS_EKERNEL: return "THEUS_EKERNEL";
    case THEUS_ESPAWN: return "THEUS_ESPAWN";
    case THEUS_TASK_FAILED: return "THEUS_TASK_FAILED";
    case THEUS_TASK_CRASHED: return "THEUS_TASK_CRASHED";
    case THEUS_TASK_TIMEOUT: return "THEUS_TASK_TIMEOUT";
    case THEUS_TASK_CANCELLED: return "THEUS_TASK_CANCELLED";
    case THEUS_EPANIC: return "THEUS_EPANIC";
    case THEUS_EPOISONED: return "THEUS_EPOISONED";
    default: return "unknown status";
  }
}

int32_t theus_release(uint64_t handle) {
  if (forked()) return refuse_fork(NULL);
  return theusgo_release(handle);
}

int32_t theus_release_later(uint64_t handle) {
  if (forked()) return refuse_fork(NULL);
  return theusgo_release_later(handle);
}

int32_t theus_open(const theus_options *opts, theus_engine *out, theus_error *err) {
  /* Of several first calls one probes and opens: two probes at once may not find room for both. */
  static pthread_mutex_t first = PTHREAD_MUTEX_INITIALIZER;
  static _Atomic int opened; /* Go has made what threads it needs: see threads.go */
  int32_t status;
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  if (opened) return theusgo_open((theus_options *)opts, out, err);
  pthread_mutex_lock(&first);
  if (!opened && shim_threads_left(FIRST_THREADS) < FIRST_THREADS)
    status = refuse_threads(err);
  else if (!opened && !descriptors_left(FIRST_DESCRIPTORS))
    status = refuse_descriptors(err);
  else
    status = theusgo_open((theus_options *)opts, out, err);
  if (status == THEUS_OK) opened = 1;
  pthread_mutex_unlock(&first);
  return status;
}

int32_t theus_drain(theus_engine engine, int64_t timeout_ms, theus_error *err) {
  if (forked()) return refuse_fork(err);
  return theusgo_drain(engine, timeout_ms, err);
}

int32_t theus_close(theus_engine engine, int64_t grace_ms, theus_error *err) {
  if (forked()) return refuse_fork(err);
  return theusgo_close(engine, grace_ms, err);
}

int32_t theus_alloc(theus_engine engine, const char *key, int32_t dtype, int32_t ndim, const int64_t *shape, uint32_t flags, theus_buf *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_alloc(engine, (char *)key, dtype, ndim, (int64_t *)shape, flags, out, err);
}

int32_t theus_alloc_descr(theus_engine engine, const char *key, const char *descr, uint64_t itemsize, int32_t ndim, const int64_t *shape, uint32_t flags, theus_buf *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_alloc_descr(engine, (char *)key, (char *)descr, itemsize, ndim, (int64_t *)shape, flags, out, err);
}

int32_t theus_edit(theus_engine engine, const char *key, uint32_t flags, theus_buf *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_edit(engine, (char *)key, flags, out, err);
}

int32_t theus_stream_open(theus_engine engine, const char *key, const char *descr, uint64_t itemsize, int32_t ndim, const int64_t *shape, uint64_t keep, uint32_t flags, theus_stream *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_stream_open(engine, (char *)key, (char *)descr, itemsize, ndim, (int64_t *)shape, keep, flags, out, err);
}

int32_t theus_stream_next(theus_stream stream, int64_t timeout_ms, theus_buf *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_stream_next(stream, timeout_ms, out, err);
}

int32_t theus_window_open(theus_engine engine, const char *key, const char *descr, uint64_t itemsize, int32_t ndim, const int64_t *shape, uint64_t rows, theus_window *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_window_open(engine, (char *)key, (char *)descr, itemsize, ndim, (int64_t *)shape, rows, out, err);
}

int32_t theus_window_append(theus_window window, const void *rows, uint64_t n, theus_buf *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_window_append(window, (void *)rows, n, out, err);
}

int32_t theus_view_get(theus_buf buf, theus_view *view, theus_error *err) {
  if (forked()) return refuse_fork(err);
  return theusgo_view_get(buf, view, err);
}

int32_t theus_snapshot(theus_engine engine, theus_snap *out, uint64_t *version, theus_error *err) {
  if (out != NULL) *out = 0;
  if (version != NULL) *version = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_snapshot(engine, out, version, err);
}

int32_t theus_get(theus_snap snap, const char *key, theus_buf *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_get(snap, (char *)key, out, err);
}

int32_t theus_get_json(theus_snap snap, const char *path, theus_blob *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_get_json(snap, (char *)path, out, err);
}

int32_t theus_export(theus_snap snap, const char *path, theus_blob *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_export(snap, (char *)path, out, err);
}

int32_t theus_heavy_keys(theus_snap snap, theus_blob *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_heavy_keys(snap, out, err);
}

int32_t theus_cas(theus_engine engine, uint64_t expected, const theus_update *updates, uint64_t n, uint32_t flags, uint64_t *version, theus_error *err) {
  if (version != NULL) *version = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_cas(engine, expected, (theus_update *)updates, n, flags, version, err);
}

int32_t theus_define(theus_engine engine, const char *name, const theus_span *code, uint64_t ncode, theus_function *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_define(engine, (char *)name, (theus_span *)code, ncode, out, err);
}

int32_t theus_execute(theus_engine engine, const theus_call *call, theus_task *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_execute(engine, (theus_call *)call, out, err);
}

int32_t theus_run(theus_engine engine, const theus_call *call, theus_task *out, theus_small *small, theus_error *err) {
  if (out != NULL) *out = 0;
  if (small != NULL && small->struct_size >= sizeof *small) small->taken = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_run(engine, (theus_call *)call, out, small, err);
}

int32_t theus_wait(theus_task task, int64_t timeout_ms, theus_error *err) {
  if (forked()) return refuse_fork(err);
  return theusgo_wait(task, timeout_ms, err);
}

int32_t theus_look(theus_task task, theus_error *err) {
  if (forked()) return refuse_fork(err);
  return theusgo_look(task, err);
}

int32_t theus_announce(theus_task task, theus_queue queue, uint64_t tag, theus_error *err) {
  if (forked()) return refuse_fork(err);
  return theusgo_announce(task, queue, tag, err);
}

int32_t theus_result(theus_task task, theus_value *out, theus_error *err) {
  if (out != NULL && out->struct_size >= sizeof *out) {
    uint32_t size = out->struct_size;
    memset(out, 0, sizeof *out);
    out->struct_size = size;
  }
  if (forked()) return refuse_fork(err);
  return theusgo_result(task, out, err);
}

int32_t theus_take(theus_task task, theus_small *out, theus_error *err) {
  if (out != NULL && out->struct_size >= sizeof *out) out->taken = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_take(task, out, err);
}

int32_t theus_result_buf(theus_task task, uint64_t i, theus_buf *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_result_buf(task, i, out, err);
}

int32_t theus_cancel(theus_task task, theus_error *err) {
  if (forked()) return refuse_fork(err);
  return theusgo_cancel(task, err);
}

int32_t theus_queue_open(theus_engine engine, uint32_t flags, theus_queue *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_queue_open(engine, flags, out, err);
}

int32_t theus_queue_fd(theus_queue queue, int32_t *fd, theus_error *err) {
  if (fd != NULL) *fd = -1;
  if (forked()) return refuse_fork(err);
  return theusgo_queue_fd(queue, fd, err);
}

int32_t theus_poll(theus_queue queue, theus_event *events, uint64_t cap, uint64_t *n, theus_error *err) {
  if (n != NULL) *n = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_poll(queue, events, cap, n, err);
}

int32_t theus_collect(theus_queue queue, theus_event *events, theus_small *results, uint64_t cap, uint64_t *n, theus_error *err) {
  if (n != NULL) *n = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_collect(queue, events, results, cap, n, err);
}

int32_t theus_logs(theus_engine engine, theus_blob *out, theus_error *err) {
  if (out != NULL) *out = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_logs(engine, out, err);
}

int32_t theus_blob_data(theus_blob blob, const void **ptr, uint64_t *len) {
  if (ptr != NULL) *ptr = NULL;
  if (len != NULL) *len = 0;
  if (forked()) return refuse_fork(NULL);
  return theusgo_blob_data(blob, (void **)ptr, len);
}

int32_t theus_stats(theus_engine engine, theus_blob *json, theus_error *err) {
  if (json != NULL) *json = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_stats(engine, json, err);
}

int32_t theus_reap(theus_engine engine, theus_blob *json, theus_error *err) {
  if (json != NULL) *json = 0;
  if (forked()) return refuse_fork(err);
  return theusgo_reap(engine, json, err);
}
