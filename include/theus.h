/* theus.h - the C interface of theus, and its manual.
 *
 * theus lets worker processes compute on the same large arrays without copying
 * them. A host process (yours) opens an engine; the engine owns shared memory,
 * keeps a versioned state that changes only by compare-and-swap, and runs
 * Python functions in worker processes that read the state's arrays in place.
 *
 * Before you start
 * ----------------
 * - Fork. The library holds a Go runtime, which does not survive fork(). In a
 *   forked child every function returns THEUS_EFORKED and does nothing else;
 *   fork followed at once by exec is fine.
 * - Signals. Loading the library installs the Go runtime's handlers for SIGSEGV,
 *   SIGBUS, SIGFPE, SIGPIPE and SIGURG (used between its threads), with SA_ONSTACK and
 *   SA_RESTART. Each passes on to what was there before: a handler is called, and where
 *   SIGPIPE ended the process it still does. No other signal is touched: SIGINT, SIGTERM
 *   and SIGCHLD are left to you.
 * - A second Go runtime in the same process (another Go c-shared library) is
 *   not supported by Go.
 * - Never dlclose() the library: Go does not support unloading.
 * - Workers are Python processes. They die with the host, however it dies.
 *
 * Rules that hold for every function
 * ----------------------------------
 * - It returns a status: THEUS_OK (0), or one of the codes below. The range
 *   says whose fault it is: 1-99 the caller's, 100-199 the machine's, 200-299
 *   the task's own, 300-399 a bug in theus.
 * - `err` may be NULL. If it is not, set err->struct_size before the call; on
 *   failure code, message and perhaps detail are filled in. On success it is
 *   not touched. detail, when not 0, is a blob of JSON to be released by the caller.
 * - Structs start with struct_size, to be set to sizeof by the caller. They
 *   only ever grow at the end.
 * - Handles are 64-bit, never 0, never reused. A stale, foreign or mistyped
 *   handle gives THEUS_EBADF. Whoever receives a handle releases it with
 *   theus_release, exactly once; an engine's after theus_close.
 * - Out-parameters are set to 0 on entry, so they are defined on failure too.
 * - Strings are UTF-8 and end with NUL. Everything passed in is copied before the call
 *   returns. Payloads are pointer and length. Times are in milliseconds.
 * - Every function may be called from any thread at any time. "Does not block"
 *   means: no waiting for a worker, another task or a timer.
 * - A bug inside the library never ends the process: the call returns
 *   THEUS_EPANIC, and its engine is poisoned: every later call on it returns
 *   THEUS_EPOISONED with the first cause in the message.
 */
#ifndef THEUS_H
#define THEUS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* These functions, and no others, are visible in the library. */
#pragma GCC visibility push(default)

/* Grows when a change is not compatible. Compare with theus_abi_version(). */
#define THEUS_ABI_VERSION 1u

typedef uint64_t theus_engine;   /* an open engine */
typedef uint64_t theus_buf;      /* an array in shared memory */
typedef uint64_t theus_snap;     /* a pinned version of the state */
typedef uint64_t theus_stream;   /* versions of one key, so many at a time */
typedef uint64_t theus_window;   /* the newest rows of a series that grows */
typedef uint64_t theus_function; /* code that workers can run */
typedef uint64_t theus_task;     /* one execution */
typedef uint64_t theus_blob;     /* bytes that the library owns */
typedef uint64_t theus_queue;    /* where finished tasks are announced */

/* ---- statuses ---------------------------------------------------------- */

#define THEUS_OK 0
/* the caller's */
#define THEUS_EINVAL 1      /* an argument makes no sense; the message says which */
#define THEUS_EBADF 2       /* stale, foreign or mistyped handle, or released twice */
#define THEUS_ENOTFOUND 3   /* no such key, path or result buffer */
#define THEUS_ECONFLICT 4   /* compare-and-swap lost; detail names paths and versions */
#define THEUS_EVERSION 5    /* expected version lies above the current one */
#define THEUS_EPUBLISHED 6  /* the array is published already and cannot change */
#define THEUS_EUNPUBLISHED 7 /* the key is allocated but was never published */
#define THEUS_ECODEC 8      /* the value is stored in another codec (pickled, say) */
#define THEUS_ECLOSED 9     /* the engine is closed */
#define THEUS_EFORKED 10    /* called in a forked child of the host */
#define THEUS_ETIMEDOUT 11  /* the wait ended first; nothing else changed */
#define THEUS_EPENDING 12   /* the task has not ended yet */
/* the machine's */
#define THEUS_EHEAP 100     /* heap or memory limit; detail: asked, in_use, limit, source, holders, and \
                             * backlog when tasks will give enough of it back, see theus_alloc */
#define THEUS_ELIMIT 101    /* descriptors, mappings, threads or file size exhausted */
#define THEUS_EKERNEL 102   /* the kernel lacks or refused something; the message says what */
#define THEUS_ESPAWN 103    /* worker processes cannot be started; the message has the cause */
/* the task's own: how it ended */
#define THEUS_TASK_FAILED 200    /* it raised; theus_result gives type, text and traceback */
#define THEUS_TASK_CRASHED 201   /* its worker died; detail: task, pid, signal, exit, reason, oom, peak_rss */
#define THEUS_TASK_TIMEOUT 202   /* it ran longer than timeout_ms; its worker was ended */
#define THEUS_TASK_CANCELLED 203 /* theus_cancel, or the engine was closed */
/* bugs */
#define THEUS_EPANIC 300    /* a bug in theus, caught; the engine is poisoned now */
#define THEUS_EPOISONED 301 /* an earlier bug poisoned the engine; the message has its cause */

/* ---- structs ----------------------------------------------------------- */

typedef struct theus_error {
  uint32_t struct_size;
  int32_t code;
  theus_blob detail; /* JSON, or 0; released by the caller */
  char message[496]; /* what happened, where, what to do; always ends with NUL */
} theus_error;

typedef struct theus_span {
  const void *ptr;
  uint64_t len;
} theus_span;

/* bits of theus_options.flags */
#define THEUS_OPEN_LAZY 1u /* start workers with the first task, not at open */

typedef struct theus_options {
  uint32_t struct_size;
  uint32_t flags;              /* THEUS_OPEN_* */
  int32_t workers;             /* <= 0: one per CPU that this process may use */
  int32_t threads_per_worker;  /* BLAS and OpenMP; <= 0: CPUs / workers, at least 1 */
  uint64_t heap_bytes;         /* 0: 80 % of what the machine or cgroup can still give */
  uint64_t seed;               /* of the tasks' random generators; 0: drawn from the kernel */
  const char *name;            /* for messages and stats; NULL: "theus" */
  const char *python;          /* interpreter for workers; NULL: "python3" on env's PATH */
  const char *worker_main;     /* the zygote's program; NULL: asked of `python` (theus must be installed there) */
  const char *cwd;             /* NULL: the host's */
  const char *const *sys_path; /* NULL-ended; NULL: the interpreter's own */
  const char *const *preload;  /* modules imported once, before workers fork; NULL-ended; NULL: numpy */
  const char *const *env;      /* "NAME=value", NULL-ended; NULL: the environment at load time */
} theus_options;

/* dtype codes. THEUS_OTHER means: see descr. */
#define THEUS_OTHER 0
#define THEUS_BOOL 1
#define THEUS_I8 2
#define THEUS_U8 3
#define THEUS_I16 4
#define THEUS_U16 5
#define THEUS_I32 6
#define THEUS_U32 7
#define THEUS_I64 8
#define THEUS_U64 9
#define THEUS_F16 10
#define THEUS_F32 11
#define THEUS_F64 12
#define THEUS_C64 13
#define THEUS_C128 14

#define THEUS_MAX_NDIM 32

/* bits of theus_view.flags */
#define THEUS_VIEW_WRITABLE 1u  /* under construction or live: you may write through data */
#define THEUS_VIEW_PUBLISHED 2u /* part of some version of the state */
#define THEUS_VIEW_LIVE 4u      /* written in place, no snapshot promise */

typedef struct theus_view {
  uint32_t struct_size;
  uint32_t flags;
  int32_t dtype, ndim;
  void *data; /* valid until the buf is released, also after theus_close */
  uint64_t nbytes, itemsize;
  uint64_t version;  /* of the state at which this array was published; 0: not yet */
  uint64_t segment;  /* identity of the memory; small arrays share some, each at its own offset */
  const char *descr; /* numpy descr, e.g. "<f8"; lives as long as the buf */
  int64_t shape[THEUS_MAX_NDIM];
  int64_t strides[THEUS_MAX_NDIM]; /* in bytes */
  uint64_t offset; /* where in its segment the array begins, or will begin once it is published */
} theus_view;

/* codecs of values */
#define THEUS_CODEC_NONE 0
#define THEUS_CODEC_RAW 1    /* bytes, as they are */
#define THEUS_CODEC_JSON 2   /* UTF-8 JSON */
#define THEUS_CODEC_PICKLE 3 /* Python pickle, protocol 5; spans after the first are its buffers */

/* operations of theus_cas */
#define THEUS_SET_HEAVY 1    /* path is a key, literally; buf */
#define THEUS_DELETE_HEAVY 2 /* path is a key, literally */
#define THEUS_SET 3          /* path, codec, ptr, len: replaces the whole subtree */
#define THEUS_DELETE 4       /* path: removes the whole subtree */
#define THEUS_CHECK_HEAVY 5  /* path is a key, literally: a conflict if it changed, and nothing else; "" is all */
#define THEUS_CHECK 6        /* path: the same for the whole subtree; "" is all data */

typedef struct theus_update {
  uint32_t struct_size;
  int32_t op;
  const char *path; /* data: "a.b" is a -> b; write "\." for a dot and "\\" for a backslash in a key */
  int32_t codec, reserved;
  theus_buf buf;
  const void *ptr;
  uint64_t len;
} theus_update;

/* a task's input or result: spans[0] is the value, the others a pickle's out-of-band buffers */
typedef struct theus_value {
  uint32_t struct_size;
  int32_t codec;
  theus_blob blob;         /* keeps the spans valid (writable memory); released by the caller */
  const theus_span *spans; /* lives as long as blob */
  uint64_t nspans;
  uint64_t nbufs;          /* arrays that came with it: theus_result_buf */
} theus_value;

/* a small result, in place: see theus_take */
#define THEUS_SMALL 1000

typedef struct theus_small {
  uint32_t struct_size;
  int32_t taken; /* 1: the rest is set, and the task's handle is released */
  int32_t codec, reserved;
  uint64_t len;
  unsigned char data[THEUS_SMALL];
} theus_small;

/* bits of theus_call.flags */
#define THEUS_CALL_NO_LEARN 1u /* do not send along the heavy keys this function used before */

typedef struct theus_call {
  uint32_t struct_size;
  uint32_t flags;
  const char *target;      /* "package.module:function", imported in the worker; or NULL and: */
  theus_function function; /* from theus_define */
  int32_t in_codec;        /* THEUS_CODEC_*; NONE: no input. JSON: an object of keyword arguments */
  int32_t out_codec;       /* what theus_result shall give: JSON, RAW or PICKLE (0: PICKLE) */
  const theus_span *in;
  uint64_t nin;
  const theus_buf *bufs; /* arrays that the input refers to, kept and sent along */
  uint64_t nbufs;
  const char *const *keys; /* heavy keys it declares to read: sent along, saves a round trip */
  uint64_t nkeys;
  theus_snap at;      /* the version that it reads; 0: the current one */
  int64_t timeout_ms; /* of running time, not of waiting in the queue; <= 0: none */
  int32_t retries;    /* after a crash of its worker */
  int32_t reserved;
  uint64_t rng_key;  /* picks the task's random stream; 0: its number in submission order */
  theus_queue queue; /* announces the end; 0: none, use theus_wait */
  uint64_t tag;      /* yours, given back in the event */
} theus_call;

/* kinds of theus_event */
#define THEUS_EVENT_TASK 1 /* a task ended: task, tag, status */
#define THEUS_EVENT_LOG 2  /* log records wait: theus_logs */

typedef struct theus_event {
  theus_task task;
  uint64_t tag;
  int32_t status; /* THEUS_OK or THEUS_TASK_* */
  int32_t kind;
} theus_event;

/* ---- library ----------------------------------------------------------- */

/* THEUS_ABI_VERSION of the library that is loaded. Never fails, does not block. */
uint32_t theus_abi_version(void);

/* "THEUS_EHEAP" for THEUS_EHEAP; "unknown status" otherwise. Static storage. */
const char *theus_status_name(int32_t status);

/* Version of the library, e.g. "0.1.0". Static storage. */
const char *theus_version(void);

/* Lets go of a handle: the memory behind it stays while others use it (views of
 * it in workers, later versions of the state). Does not block.
 * THEUS_EBADF: not a live handle (released twice, say). THEUS_EINVAL: an engine
 * that is not closed. */
int32_t theus_release(uint64_t handle);

/* The same for finalizers: only queues the handle and returns; it waits for no
 * lock and never fails on a stale handle. Reclaimed in the background within
 * milliseconds, without any further call, or by the next theus_reap. */
int32_t theus_release_later(uint64_t handle);

/* ---- engine ------------------------------------------------------------ */

/* Opens an engine with an empty state, version 0. opts may be NULL. Worker
 * processes start in the background: that they cannot start is reported by the
 * first task (THEUS_ESPAWN). Does not block.
 * THEUS_EINVAL, THEUS_EKERNEL, THEUS_ELIMIT. */
int32_t theus_open(const theus_options *opts, theus_engine *out, theus_error *err);

/* Waits until no task is queued or running. timeout_ms < 0: for ever.
 * THEUS_ETIMEDOUT: some are. */
int32_t theus_drain(theus_engine engine, int64_t timeout_ms, theus_error *err);

/* Ends tasks that are not done (THEUS_TASK_CANCELLED) after at most grace_ms, ends
 * the workers and waits until the kernel says that they are gone. Arrays that you
 * hold stay valid until released. Of several calls at once the least grace counts,
 * and all return when it is done. A second close: THEUS_OK. */
int32_t theus_close(theus_engine engine, int64_t grace_ms, theus_error *err);

/* ---- arrays ------------------------------------------------------------ */

/* flags */
#define THEUS_ORDER_F 1u /* first index varies fastest; default: the last */
#define THEUS_LIVE 2u    /* stays writable after publish; readers see writes at once */
#define THEUS_BLANK 4u   /* theus_edit: do not copy the current content */
#define THEUS_UNZEROED 8u /* theus_alloc: the content is undefined, it may be an older array's */
#define THEUS_OUTPUT 16u  /* theus_alloc: tasks write it, see there */

/* Allocates an array in shared memory, zeroed and 64-byte aligned, to become the next
 * version of `key`. Nobody sees it before it is published: theus_cas with
 * THEUS_SET_HEAVY. key: at most 4096 bytes; NULL: an array without a name. Sizes of 0 work. A full
 * machine is an error here, never a signal later. May block for the time the
 * kernel needs to give the pages (about 0.2 s a GiB), and in a full heap for up to 0.15 s
 * for memory that is about to come back. When THEUS_EHEAP has a backlog in its detail, there
 * is room once the tasks have ended that are queued or running (`tasks`), with the older
 * versions and inputs that they alone hold (`bytes`). As long as memory comes back
 * (`returned` grows) it is worth calling again.
 * With THEUS_OUTPUT workers may write it as well, each its own part: those whose task has it in
 * theus_call.bufs, for the time of that task. The first theus_cas that names it, also one that
 * loses, ends all writing, this process's too: call theus_view_get again for where it is read. (The
 * old address stays valid until the buf is released.) Where a process that a task started has it
 * still, the array is a copy.
 * THEUS_EINVAL: key, dtype, ndim, flags or shape (negative, or the product overflows); THEUS_EHEAP;
 * THEUS_ELIMIT. */
int32_t theus_alloc(theus_engine engine, const char *key, int32_t dtype, int32_t ndim,
                    const int64_t *shape, uint32_t flags, theus_buf *out, theus_error *err);

/* The same for any fixed-size numpy dtype: descr is opaque here and reaches
 * workers as it is. */
int32_t theus_alloc_descr(theus_engine engine, const char *key, const char *descr,
                          uint64_t itemsize, int32_t ndim, const int64_t *shape, uint32_t flags,
                          theus_buf *out, theus_error *err);

/* The next version of a published key as a writable array with the same shape
 * and dtype, a copy of the current content unless THEUS_BLANK. Publish it with
 * theus_cas. THEUS_ENOTFOUND, THEUS_EHEAP. */
int32_t theus_edit(theus_engine engine, const char *key, uint32_t flags, theus_buf *out,
                   theus_error *err);

#define THEUS_DROP_OLDEST 1u /* theus_stream_open */

/* Opens a stream of versions of `key`, of which at most `keep` are in use at once: the
 * current one and the next, so at least 2, and older ones as long as a task, snapshot or buf has them.
 * When so many are, theus_stream_next waits; with THEUS_DROP_OLDEST it does not, and the oldest
 * is left to its readers and counts no longer. key may not be NULL; descr, itemsize,
 * ndim and shape as for theus_alloc_descr. Does not block. THEUS_EINVAL. */
int32_t theus_stream_open(theus_engine engine, const char *key, const char *descr,
                          uint64_t itemsize, int32_t ndim, const int64_t *shape, uint64_t keep,
                          uint32_t flags, theus_stream *out, theus_error *err);

/* The next version to be, zeroed and under construction, as by theus_alloc. Publish it with
 * theus_cas; or release it, and it never was. timeout_ms < 0: waits as long as it takes.
 * THEUS_ETIMEDOUT: all are in use; detail: key, versions (that somebody has), building.
 * THEUS_EHEAP. */
int32_t theus_stream_next(theus_stream stream, int64_t timeout_ms, theus_buf *out,
                          theus_error *err);

/* Opens a window on the newest `rows` rows of a series, empty at first. descr, itemsize, ndim and
 * shape are those of one row, which has at least one byte. It takes the memory of twice as many rows,
 * 64 KiB at least. When that is full it goes on in as much again; the old goes when the current
 * version and all readers have left it.
 * THEUS_EINVAL, THEUS_EHEAP, THEUS_ELIMIT. */
int32_t theus_window_open(theus_engine engine, const char *key, const char *descr,
                          uint64_t itemsize, int32_t ndim, const int64_t *shape, uint64_t rows,
                          theus_window *out, theus_error *err);

/* Writes n rows, one behind the other from `rows` on, at the end of the series, and gives the
 * window that ends with them: an array of min(rows so far, rows of the window) rows, in one piece,
 * that later calls never touch. Publish it with theus_cas. n may be 0. After an error nothing was
 * appended. THEUS_EHEAP. */
int32_t theus_window_append(theus_window window, const void *rows, uint64_t n, theus_buf *out,
                            theus_error *err);

/* Where the array is and what it looks like. While it is under construction,
 * data is writable. After publish, data of the same buf stays valid and readable,
 * and what is still written there reaches nobody. A buf from theus_get maps the
 * published memory read-only: writing there is SIGSEGV. Does not block. */
int32_t theus_view_get(theus_buf buf, theus_view *view, theus_error *err);

/* ---- state ------------------------------------------------------------- */

/* Pins the current version: what it holds stays readable until it is released.
 * O(1). version may be NULL. Does not block. */
int32_t theus_snapshot(theus_engine engine, theus_snap *out, uint64_t *version, theus_error *err);

/* The array that `key` has in the snapshot. THEUS_ENOTFOUND; THEUS_EUNPUBLISHED. */
int32_t theus_get(theus_snap snap, const char *key, theus_buf *out, theus_error *err);

/* The value at a path of the data, as JSON text. An inner path gives an object.
 * THEUS_ENOTFOUND; THEUS_ECODEC: something below was stored raw or pickled, or as
 * JSON and is none. */
int32_t theus_get_json(theus_snap snap, const char *path, theus_blob *out, theus_error *err);

/* Everything at or below a path ("": all data), in the encoding of STATE
 * values in docs/internals.md; n is 0 when there is nothing. */
int32_t theus_export(theus_snap snap, const char *path, theus_blob *out, theus_error *err);

/* Keys of the arrays in the snapshot, a JSON list of strings, sorted. */
int32_t theus_heavy_keys(theus_snap snap, theus_blob *out, theus_error *err);

#define THEUS_ANY_VERSION UINT64_MAX
#define THEUS_STRICT 1u

/* Applies the updates in their order, all or none, as one new version. With
 * flags 0 it fails with THEUS_ECONFLICT when a path that it touches, or one
 * above or below it, changed after `expected`; with THEUS_STRICT when
 * `expected` is not the current version. THEUS_ANY_VERSION: never conflicts.
 * A first publish freezes the array. version (may be NULL): the new one, or on
 * conflict the current one. Checks make an update depend on what was read for it: they
 * conflict as if they changed their path, and change nothing. n = 0 or checks alone only
 * compare: no new version. Does not block.
 * THEUS_ECONFLICT, THEUS_EVERSION, THEUS_EINVAL, THEUS_EBADF. */
int32_t theus_cas(theus_engine engine, uint64_t expected, const theus_update *updates, uint64_t n,
                  uint32_t flags, uint64_t *version, theus_error *err);

/* ---- tasks ------------------------------------------------------------- */

/* Makes code known to workers; each receives it once, when it first runs it.
 * code[0] is a pickle of what docs/internals.md calls a function record, the
 * others its buffers. name is for messages. Releasing the handle lets workers forget it once no task
 * needs it. */
int32_t theus_define(theus_engine engine, const char *name, const theus_span *code, uint64_t ncode,
                     theus_function *out, theus_error *err);

/* Queues a task. Input above 64 KiB is copied once into shared memory,
 * which the worker maps. Does not block.
 * THEUS_EINVAL, THEUS_EBADF, THEUS_ECLOSED, THEUS_EHEAP, THEUS_ESPAWN. */
int32_t theus_execute(theus_engine engine, const theus_call *call, theus_task *out,
                      theus_error *err);

/* theus_execute, theus_look and theus_take in one call, for who waits for the result: a task that is likely to end right
 * now is waited for, at most 0.3 ms. If it has ended by then with a result that theus_take gives, that is in `small`,
 * small->taken is 1, and there is no handle. Otherwise small->taken is 0, and *out is the task, for theus_wait or theus_announce.
 * call->queue is 0. THEUS_EINVAL, THEUS_EBADF, THEUS_ECLOSED, THEUS_EHEAP, THEUS_ESPAWN. */
int32_t theus_run(theus_engine engine, const theus_call *call, theus_task *out, theus_small *small,
                  theus_error *err);

/* Waits until the task has ended, however. 0: only looks; < 0: for ever.
 * THEUS_ETIMEDOUT: not yet. */
int32_t theus_wait(theus_task task, int64_t timeout_ms, theus_error *err);

/* Looks whether the task has ended: THEUS_OK or THEUS_EPENDING. When it is likely
 * to end right now it polls for a moment, at most 0.3 ms: waking a sleeper
 * would take longer than the task. For event loops, before they sleep. */
int32_t theus_look(theus_task task, theus_error *err);

/* Has the end of a task announced by a queue, also when it has ended already. For
 * tasks that were executed without one. */
int32_t theus_announce(theus_task task, theus_queue queue, uint64_t tag, theus_error *err);

/* How the task ended: THEUS_OK, and `out` has the value; or THEUS_TASK_*, and
 * err has the text and its detail {"type","message","traceback"} or
 * {"task","pid","signal","exit","reason","oom","peak_rss"}: oom is true when the kernel
 * ended the worker for want of memory, peak_rss its largest size in bytes (0: unknown). After THEUS_TASK_FAILED `out` holds the pickled
 * exception, if it could be pickled (else codec NONE). Does not block: THEUS_EPENDING. */
int32_t theus_result(theus_task task, theus_value *out, theus_error *err);

/* theus_result, and the releases of its blob and of the task, in one call, for what most tasks give: if the task ended
 * well, with a value of one span and at most THEUS_SMALL bytes (or with none) and no arrays, that is put into `out`, out->taken is
 * 1, and the handle is released. Otherwise out->taken is 0 and nothing has changed: theus_result says
 * how the task ended. Does not block: THEUS_EPENDING. */
int32_t theus_take(theus_task task, theus_small *out, theus_error *err);

/* Array number i among those that came with the result (allocated in the worker).
 * THEUS_ENOTFOUND. */
int32_t theus_result_buf(theus_task task, uint64_t i, theus_buf *out, theus_error *err);

/* Ends the task now: a queued one is dropped, a running one's worker is killed
 * and replaced; other tasks are not affected. It ends as THEUS_TASK_CANCELLED
 * unless it was faster. Does not block. */
int32_t theus_cancel(theus_task task, theus_error *err);

/* flags of theus_queue_open */
#define THEUS_QUEUE_LOGS 1u /* also announce log records of workers; one queue per engine */

/* Opens a place where ends of tasks are announced, one per event loop or thread. */
int32_t theus_queue_open(theus_engine engine, uint32_t flags, theus_queue *out, theus_error *err);

/* A descriptor to poll for reading; ready while events wait. Borrowed: it is
 * closed when the queue is released, so stop polling it first. */
int32_t theus_queue_fd(theus_queue queue, int32_t *fd, theus_error *err);

/* Takes up to cap events, oldest first; *n = how many. Does not block. The event
 * does not own a handle: the task handle is the one theus_execute or theus_run gave. At most 256 in one call. */
int32_t theus_poll(theus_queue queue, theus_event *events, uint64_t cap, uint64_t *n,
                   theus_error *err);

/* theus_poll, and theus_take of each task: results[i] belongs to events[i]. Where results[i].taken is 1 the handle of
 * the task is released; where it is 0, as for log records, nothing was taken. results has room for cap, and struct_size
 * is set in results[0]. Does not block. */
int32_t theus_collect(theus_queue queue, theus_event *events, theus_small *results, uint64_t cap,
                      uint64_t *n, theus_error *err);

/* Takes the log records that workers sent: a JSON list of
 * {"task","worker","level","logger","message"}. */
int32_t theus_logs(theus_engine engine, theus_blob *out, theus_error *err);

/* ---- housekeeping ------------------------------------------------------ */

/* Bytes of a blob; the pointer lives as long as the blob. */
int32_t theus_blob_data(theus_blob blob, const void **ptr, uint64_t *len);

/* JSON: version, workers, memory, segments, tasks, conflicts, features (what of
 * the kernel is used), and reaper: what was given back since theus_open
 * ({"segments","bytes","handles","processes"}, as of theus_reap) and last_run, when
 * it last had anything to do, in seconds since 1970 (null: never). */
int32_t theus_stats(theus_engine engine, theus_blob *json, theus_error *err);

/* Reclaims at once what the background reaper reclaims a little later: releases
 * what was given to theus_release_later, and has idle workers let go of memory that
 * was retired. Never needed for correctness; nothing that is in use goes.
 *
 * *json = {"segments","bytes","handles","processes"}, what was given back while the
 * call ran, by whomever: segments that no process maps any more and their bytes,
 * handles of this engine that theus_release_later had queued, ended worker and zygote
 * processes. Each is counted when it happens, so allocations meanwhile do not
 * change it, and calls of several threads take turns, so no two report the same.
 *
 * Blocks for at most 0.2 s, for workers to answer, and only if memory is retired. Any thread.
 * THEUS_EBADF, THEUS_ECLOSED, THEUS_EPOISONED. */
int32_t theus_reap(theus_engine engine, theus_blob *json, theus_error *err);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif
#endif /* THEUS_H */
