/* Random calls of every function but theus_open and theus_close, from several threads at once: NULL for any pointer, stale and
 * foreign handles, double releases, sizes that lie. Each gives a status. The seed is printed, and
 * taken from THEUS_SEED when that is set. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define THREADS 4
#define CALLS 3000
#define HANDLES 256
#define ENGINE_HEAP (4 << 20)

static _Atomic uint64_t handles[HANDLES]; /* of all threads, so that they release each other's */

/* That `call` knows. */
#define FUNCTIONS 33

typedef struct {
  uint64_t state;
  uint64_t counts[FUNCTIONS]; /* of calls */
} generator;

/* xorshift64*: the same numbers everywhere, and a state per thread. */
static uint64_t draw(generator *g, uint64_t below) {
  g->state ^= g->state >> 12;
  g->state ^= g->state << 25;
  g->state ^= g->state >> 27;
  return (g->state * UINT64_C(2685821657736338717) >> 33) % below;
}

static int rarely(generator *g) { return draw(g, 8) == 0; }

static uint64_t some_handle(generator *g) {
  static const uint64_t strange[] = {0, 1, 0x5401, UINT64_MAX, UINT64_C(1) << 32};
  if (rarely(g)) return strange[draw(g, 5)];
  return atomic_load(&handles[draw(g, HANDLES)]);
}

static uint64_t engine(generator *g) {
  return rarely(g) ? some_handle(g) : atomic_load(&handles[draw(g, 2)]);
}

/* The first two places are the engines'; what is pushed out of the others is released. */
static void keep(generator *g, uint64_t handle) {
  if (handle == 0) return;
  uint64_t old = atomic_exchange(&handles[2 + draw(g, HANDLES - 2)], handle);
  if (draw(g, 2)) {
    theus_release(old);
  } else {
    theus_release_later(old);
  }
}

static const char *some_text(generator *g) {
  static const char *const texts[] = {"x", "y", "a.b", "", "<f8", "|u1", "a..b", "\\",
                                      "\xff", "operator:add"};
  return rarely(g) ? NULL : texts[draw(g, 10)];
}

static int64_t some_length(generator *g) {
  static const int64_t lengths[] = {1, 2, 0, 1000, 3, -1, INT64_MAX, INT64_MIN, INT64_C(1) << 32};
  return lengths[draw(g, rarely(g) ? 9 : 5)];
}

static int64_t some_time(generator *g) {
  static const int64_t times[] = {0, 1, 5};
  return times[draw(g, 3)];
}

/* A struct_size: mostly right, else too small; a larger one promises memory that is not there. */
static uint32_t size_of(generator *g, size_t right) {
  return rarely(g) ? (uint32_t)draw(g, right) : (uint32_t)right;
}

static int32_t cas(generator *g, theus_error *err) {
  const char *value = "{\"a\": 1}";
  uint64_t version;
  theus_update updates[3];
  uint64_t n = draw(g, 4);
  memset(updates, 0, sizeof updates);
  for (int i = 0; i < 3; i++) {
    updates[i].struct_size = size_of(g, sizeof updates[i]);
    updates[i].op = (int32_t)draw(g, 8);
    updates[i].path = some_text(g);
    updates[i].codec = (int32_t)draw(g, 6) - 1;
    updates[i].buf = some_handle(g);
    updates[i].ptr = rarely(g) ? NULL : value;
    updates[i].len = rarely(g) ? UINT64_MAX : strlen(value);
  }
  return theus_cas(engine(g), rarely(g) ? draw(g, 9) : THEUS_ANY_VERSION, rarely(g) ? NULL : updates,
                   rarely(g) ? UINT64_MAX : n, (uint32_t)draw(g, 3), rarely(g) ? NULL : &version,
                   err);
}

static int32_t execute(generator *g, theus_error *err) {
  theus_call call = {.struct_size = size_of(g, sizeof call), .target = some_text(g)};
  theus_span input = {rarely(g) ? NULL : "{}", rarely(g) ? UINT64_C(1) << 62 : 2};
  theus_buf buf = some_handle(g);
  const char *key = some_text(g);
  theus_task task = 0;
  call.function = draw(g, 2) ? 0 : some_handle(g);
  call.in_codec = (int32_t)draw(g, 5);
  call.out_codec = (int32_t)draw(g, 5);
  call.in = rarely(g) ? NULL : &input;
  call.nin = rarely(g) ? UINT64_MAX : draw(g, 2);
  call.bufs = rarely(g) ? NULL : &buf;
  call.nbufs = rarely(g) ? UINT64_MAX : draw(g, 2);
  call.keys = rarely(g) ? NULL : &key;
  call.nkeys = rarely(g) ? UINT64_MAX : draw(g, 2);
  call.at = draw(g, 2) ? 0 : some_handle(g);
  call.queue = draw(g, 2) ? 0 : some_handle(g);
  call.timeout_ms = some_time(g);
  theus_small small = {.struct_size = size_of(g, sizeof small)};
  int32_t status;
  if (draw(g, 2)) {
    status = theus_execute(engine(g), rarely(g) ? NULL : &call, rarely(g) ? NULL : &task, err);
  } else {
    status = theus_run(engine(g), rarely(g) ? NULL : &call, rarely(g) ? NULL : &task,
                       rarely(g) ? NULL : &small, err);
  }
  keep(g, task);
  return status;
}

static int32_t result(generator *g, theus_error *err) {
  theus_value value = {.struct_size = size_of(g, sizeof value)};
  int32_t status = theus_result(some_handle(g), rarely(g) ? NULL : &value, err);
  keep(g, value.blob);
  return status;
}

static int32_t take(generator *g, theus_error *err) {
  theus_small small = {.struct_size = size_of(g, sizeof small)};
  return theus_take(some_handle(g), rarely(g) ? NULL : &small, err);
}

static int32_t view(generator *g, theus_error *err) {
  theus_view view = {.struct_size = size_of(g, sizeof view)};
  return theus_view_get(some_handle(g), rarely(g) ? NULL : &view, err);
}

static int32_t alloc(generator *g, int with_descr, theus_error *err) {
  int64_t shape[40];
  theus_buf buf = 0, *out = rarely(g) ? NULL : &buf;
  int32_t ndim = rarely(g) ? (int32_t)draw(g, 80) - 40 : (int32_t)draw(g, 4);
  uint32_t flags = (uint32_t)draw(g, rarely(g) ? 16 : 4);
  int32_t status;
  for (int i = 0; i < 40; i++) shape[i] = some_length(g);
  const int64_t *lengths = rarely(g) ? NULL : shape;
  if (with_descr) {
    status = theus_alloc_descr(engine(g), some_text(g), some_text(g), (uint64_t)some_length(g), ndim,
                               lengths, flags, out, err);
  } else {
    status = theus_alloc(engine(g), some_text(g), (int32_t)draw(g, 18) - 1, ndim, lengths, flags,
                         out, err);
  }
  keep(g, buf);
  return status;
}

static int32_t define(generator *g, theus_error *err) {
  theus_function function = 0;
  theus_span code = {rarely(g) ? NULL : "code", rarely(g) ? UINT64_MAX : 4};
  int32_t status = theus_define(engine(g), some_text(g), rarely(g) ? NULL : &code,
                                rarely(g) ? UINT64_MAX : draw(g, 2),
                                rarely(g) ? NULL : &function, err);
  keep(g, function);
  return status;
}

static int32_t poll_events(generator *g, theus_error *err) {
  theus_event events[4];
  theus_small results[4];
  uint64_t n;
  results[0].struct_size = size_of(g, sizeof results[0]);
  if (draw(g, 2)) {
    return theus_collect(some_handle(g), rarely(g) ? NULL : events, rarely(g) ? NULL : results,
                         draw(g, 5), rarely(g) ? NULL : &n, err);
  }
  return theus_poll(some_handle(g), rarely(g) ? NULL : events, draw(g, 5), rarely(g) ? NULL : &n,
                    err);
}

static int32_t blob_data(generator *g) {
  const void *ptr;
  uint64_t len;
  return theus_blob_data(some_handle(g), rarely(g) ? NULL : &ptr, rarely(g) ? NULL : &len);
}

static int32_t open_series(generator *g, int window, theus_error *err) {
  int64_t shape[40];
  uint64_t made = 0, *out = rarely(g) ? NULL : &made, size = (uint64_t)some_length(g);
  int32_t ndim = rarely(g) ? (int32_t)draw(g, 80) - 40 : (int32_t)draw(g, 3);
  int32_t status;
  for (int i = 0; i < 40; i++) shape[i] = some_length(g);
  const int64_t *lengths = rarely(g) ? NULL : shape;
  if (window) {
    status = theus_window_open(engine(g), some_text(g), some_text(g), size, ndim, lengths,
                               (uint64_t)some_length(g), out, err);
  } else {
    status = theus_stream_open(engine(g), some_text(g), some_text(g), size, ndim, lengths, draw(g, 5),
                               (uint32_t)draw(g, 3), out, err);
  }
  keep(g, made);
  return status;
}

/* More than the rows of any window that fits into the engines' heap. */
static char rows[5 * ENGINE_HEAP];

/* One call; those that give a handle give it to everybody. */
static int32_t call(generator *g, uint64_t which, theus_error *err) {
  uint64_t made = 0, version = 0, *out = rarely(g) ? NULL : &made;
  int32_t fd, status;
  switch (which) {
    case 0: return alloc(g, 0, err);
    case 1: return alloc(g, 1, err);
    case 2: return cas(g, err);
    case 3: return execute(g, err);
    case 4: return result(g, err);
    case 5: return view(g, err);
    case 6: return define(g, err);
    case 7: return poll_events(g, err);
    case 8: return blob_data(g);
    case 9: return theus_release(atomic_load(&handles[2 + draw(g, HANDLES - 2)]));
    case 10: return theus_release_later(some_handle(g));
    case 11: return theus_drain(some_handle(g), some_time(g), err);
    case 12: return theus_wait(some_handle(g), some_time(g), err);
    case 13: return theus_look(some_handle(g), err);
    case 14: return theus_cancel(some_handle(g), err);
    case 15: return theus_announce(some_handle(g), some_handle(g), 7, err);
    case 16: return theus_queue_fd(some_handle(g), rarely(g) ? NULL : &fd, err);
    case 17: status = theus_edit(engine(g), some_text(g), (uint32_t)draw(g, 9), out, err); break;
    case 18: status = theus_snapshot(engine(g), out, rarely(g) ? NULL : &version, err); break;
    case 19: status = theus_get(some_handle(g), some_text(g), out, err); break;
    case 20: status = theus_get_json(some_handle(g), some_text(g), out, err); break;
    case 21: status = theus_export(some_handle(g), some_text(g), out, err); break;
    case 22: status = theus_heavy_keys(some_handle(g), out, err); break;
    case 23: status = theus_result_buf(some_handle(g), draw(g, 3), out, err); break;
    case 24: status = theus_queue_open(engine(g), (uint32_t)draw(g, 3), out, err); break;
    case 25: status = theus_logs(engine(g), out, err); break;
    case 26: status = theus_stats(engine(g), out, err); break;
    case 27: return open_series(g, 0, err);
    case 28: return open_series(g, 1, err);
    case 29: status = theus_stream_next(some_handle(g), some_time(g), out, err); break;
    case 30: {
      uint64_t n = draw(g, 5);
      status = theus_window_append(some_handle(g), rarely(g) ? NULL : rows, n, out, err);
      break;
    }
    case 31: return take(g, err);
    default: status = theus_reap(engine(g), out, err); break;
  }
  keep(g, made);
  return status;
}

static void *run(void *argument) {
  generator *g = argument;
  for (int i = 0; i < CALLS; i++) {
    theus_error err = ERROR_INIT;
    err.struct_size = size_of(g, sizeof err);
    uint64_t which = draw(g, FUNCTIONS);
    int32_t status = call(g, which, rarely(g) ? NULL : &err);
    if (strcmp(theus_status_name(status), "unknown status") == 0 || status >= 300) {
      fprintf(stderr, "call %d of function %d gave %d: %s\n", i, (int)which, status, err.message);
      exit(1);
    }
    if (err.detail != 0) theus_release(err.detail);
    g->counts[which]++;
  }
  return NULL;
}

/* Two engines whose workers cannot start: tasks end without one, at once. */
static void open_engines(theus_error err) {
  for (int i = 0; i < 2; i++) {
    theus_engine opened;
    theus_options options = test_options();
    options.flags = THEUS_OPEN_LAZY;
    options.heap_bytes = ENGINE_HEAP;
    options.python = "/nowhere/python";
    options.worker_main = "unused";
    OK(theus_open(&options, &opened, &err));
    atomic_store(&handles[i], opened);
  }
}

static void close_all(theus_error err) {
  for (int i = 0; i < 2; i++) OK(theus_close(handles[i], 0, &err));
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < HANDLES; i++) theus_release(handles[i]);
  }
  for (int i = 0; i < HANDLES; i++) FAILS(THEUS_EBADF, theus_release(handles[i]));
}

int main(void) {
  const char *given = getenv("THEUS_SEED");
  uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
  static generator generators[THREADS];
  pthread_t threads[THREADS];
  theus_error err = ERROR_INIT;
  int descriptors = open_descriptors();
  printf("test_random_calls: THEUS_SEED=%llu\n", (unsigned long long)seed);
  fflush(stdout);
  open_engines(err);
  for (int i = 0; i < THREADS; i++) {
    generators[i].state = seed * THREADS + (uint64_t)i + 1;
    CHECK(pthread_create(&threads[i], NULL, run, &generators[i]) == 0);
  }
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  for (int which = 0; which < FUNCTIONS; which++) {
    uint64_t count = 0;
    for (int i = 0; i < THREADS; i++) count += generators[i].counts[which];
    CHECK(count > 0);
  }
  close_all(err);
  /* What theus_release_later took is released in the background. */
  struct timespec moment = {0, 1000000};
  for (int i = 0; i < 60000 && memfd_mappings() != 0; i++) nanosleep(&moment, NULL);
  CHECK(memfd_mappings() == 0);
  CHECK(no_more_descriptors_than(descriptors));
  printf("test_random_calls: %d calls from %d threads, 1 passed, 0 failed\n", THREADS * CALLS,
         THREADS);
  return 0;
}
