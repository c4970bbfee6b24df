/* A C host, end to end: open, allocate, publish, run a Python function, read its result. */
#include "check.h"

#include <poll.h>
#include <sched.h>

static theus_error err = ERROR_INIT;

/* Runs a Python function on keyword arguments in JSON and returns its task. */
static theus_task start(theus_engine engine, const char *target, const char *json) {
  theus_span in = {json, strlen(json)};
  theus_call call;
  theus_task task;
  memset(&call, 0, sizeof call);
  call.struct_size = sizeof call;
  call.target = target;
  call.in_codec = THEUS_CODEC_JSON;
  call.out_codec = THEUS_CODEC_JSON;
  call.in = &in;
  call.nin = 1;
  OK(theus_execute(engine, &call, &task, &err));
  return task;
}

static void expect_json(theus_task task, const char *json) {
  theus_value value = {.struct_size = sizeof value};
  OK(theus_wait(task, 60000, &err));
  OK(theus_result(task, &value, &err));
  CHECK(value.codec == THEUS_CODEC_JSON && value.nspans == 1);
  CHECK(value.spans[0].len == strlen(json));
  CHECK(memcmp(value.spans[0].ptr, json, strlen(json)) == 0);
  OK(theus_release(value.blob));
  OK(theus_release(task));
}

static void small_results_take_one_call(theus_engine engine) {
  theus_small small = {.struct_size = sizeof small};
  theus_task task = start(engine, "c_tasks:sum_of", "{\"a\": 20, \"b\": 22}");
  OK(theus_wait(task, 60000, &err));
  OK(theus_take(task, &small, &err));
  CHECK(small.taken == 1 && small.codec == THEUS_CODEC_JSON);
  CHECK(small.len == 2 && memcmp(small.data, "42", 2) == 0);
  FAILS(THEUS_EBADF, theus_take(task, &small, &err)); /* it has released the handle */
  CHECK(small.taken == 0);

  task = start(engine, "c_tasks:fail", "{\"text\": \"on purpose\"}"); /* what is not that simple is left to theus_result */
  OK(theus_wait(task, 60000, &err));
  OK(theus_take(task, &small, &err));
  CHECK(small.taken == 0);
  theus_value value = {.struct_size = sizeof value};
  FAILS(THEUS_TASK_FAILED, theus_result(task, &value, &err));
  OK(theus_release(err.detail));
  if (value.blob != 0) OK(theus_release(value.blob));
  OK(theus_release(task));
}

/* Of a task that gives raw bytes, as many as asked for. */
static theus_task letters(theus_engine engine, const char *json) {
  theus_span in = {json, strlen(json)};
  theus_call call = {.struct_size = sizeof call,
                     .target = "c_tasks:letters",
                     .in_codec = THEUS_CODEC_JSON,
                     .out_codec = THEUS_CODEC_RAW,
                     .in = &in,
                     .nin = 1};
  theus_task task;
  OK(theus_execute(engine, &call, &task, &err));
  return task;
}

static void results_are_small_up_to_a_size(theus_engine engine) {
  theus_small small = {.struct_size = sizeof small};
  theus_task task = letters(engine, "{\"count\": 1000}");
  OK(theus_wait(task, 60000, &err));
  OK(theus_take(task, &small, &err));
  CHECK(small.taken == 1 && small.codec == THEUS_CODEC_RAW && small.len == THEUS_SMALL);
  CHECK(small.data[0] == 'a' && small.data[THEUS_SMALL - 1] == 'a');

  task = letters(engine, "{\"count\": 0}");
  OK(theus_wait(task, 60000, &err));
  OK(theus_take(task, &small, &err));
  CHECK(small.taken == 1 && small.len == 0);

  task = letters(engine, "{\"count\": 1001}");
  OK(theus_wait(task, 60000, &err));
  OK(theus_take(task, &small, &err));
  CHECK(small.taken == 0);
  OK(theus_release(task));

  task = start(engine, "c_tasks:hang", "{}");
  FAILS(THEUS_EPENDING, theus_take(task, &small, &err));
  CHECK(small.taken == 0);
  OK(theus_cancel(task, &err));
  OK(theus_wait(task, 60000, &err));
  OK(theus_take(task, &small, &err));
  CHECK(small.taken == 0);
  OK(theus_release(task));
}

static theus_call call_of(const char *target, const theus_span *in) {
  theus_call call = {.struct_size = sizeof call,
                     .target = target,
                     .in_codec = THEUS_CODEC_JSON,
                     .out_codec = THEUS_CODEC_JSON,
                     .in = in,
                     .nin = 1};
  return call;
}

/* How many this process may use. */
static int processors(void) {
  cpu_set_t set;
  CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
  return CPU_COUNT(&set);
}

static void one_call_runs_a_task(theus_engine engine) {
  theus_small small = {.struct_size = sizeof small};
  theus_span in = {"{\"a\": 20, \"b\": 22}", 18};
  theus_call call = call_of("c_tasks:sum_of", &in);
  theus_task task = 1;
  int at_once = 0;
  for (int i = 0; i < 200; i++) { /* at first the engine does not know that it is short, and does not wait for it */
    OK(theus_run(engine, &call, &task, &small, &err));
    if (small.taken == 1) {
      at_once++;
      CHECK(task == 0);
    } else {
      OK(theus_wait(task, 60000, &err));
      OK(theus_take(task, &small, &err));
      CHECK(small.taken == 1);
    }
    CHECK(small.codec == THEUS_CODEC_JSON && small.len == 2 && memcmp(small.data, "42", 2) == 0);
  }
  if (processors() > 1) CHECK(at_once > 0); /* with one, who polls would keep the worker from it */

  theus_span nothing = {"{}", 2};
  call = call_of("c_tasks:hang", &nothing);
  OK(theus_run(engine, &call, &task, &small, &err));
  CHECK(small.taken == 0);
  OK(theus_cancel(task, &err));
  OK(theus_wait(task, 60000, &err));
  OK(theus_release(task));

  theus_queue queue;
  OK(theus_queue_open(engine, 0, &queue, &err));
  call.queue = queue;
  FAILS(THEUS_EINVAL, theus_run(engine, &call, &task, &small, &err));
  CHECK(task == 0);
  FAILS(THEUS_EINVAL, theus_run(engine, &call, &task, NULL, &err));
  small.struct_size = 8;
  FAILS(THEUS_EINVAL, theus_run(engine, &call, &task, &small, &err));
  OK(theus_release(queue));
}

static void results_come_with_their_events(theus_engine engine) {
  enum { TASKS = 3,
         ROOM = 8 };
  theus_queue queue;
  theus_event events[ROOM];
  theus_small results[ROOM];
  theus_task tasks[TASKS];
  uint64_t n, seen = 0;
  int32_t fd;
  theus_span sum = {"{\"a\": 20, \"b\": 22}", 18}, text = {"{\"text\": \"on purpose\"}", 22};
  OK(theus_queue_open(engine, 0, &queue, &err));
  OK(theus_queue_fd(queue, &fd, &err));
  for (int i = 0; i < TASKS; i++) {
    theus_call call = i == 1 ? call_of("c_tasks:fail", &text) : call_of("c_tasks:sum_of", &sum);
    call.queue = queue;
    call.tag = (uint64_t)i;
    OK(theus_execute(engine, &call, &tasks[i], &err));
  }
  while (seen < TASKS) {
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    CHECK(poll(&waiting, 1, 60000) == 1);
    results[0].struct_size = sizeof results[0];
    OK(theus_collect(queue, events, results, ROOM, &n, &err));
    for (uint64_t i = 0; i < n; i++) {
      CHECK(events[i].task == tasks[events[i].tag]);
      if (events[i].tag == 1) { /* theus_result says how it failed */
        CHECK(events[i].status == THEUS_TASK_FAILED && results[i].taken == 0);
        OK(theus_release(events[i].task));
      } else {
        CHECK(results[i].taken == 1 && results[i].len == 2 && memcmp(results[i].data, "42", 2) == 0);
        FAILS(THEUS_EBADF, theus_look(events[i].task, &err));
      }
    }
    seen += n;
  }
  results[0].struct_size = 0;
  FAILS(THEUS_EINVAL, theus_collect(queue, events, results, ROOM, &n, &err));
  FAILS(THEUS_EINVAL, theus_collect(queue, events, NULL, ROOM, &n, &err));
  OK(theus_release(queue));
}

static void arrays_are_shared(theus_engine engine) {
  const int64_t shape[] = {500, 400};
  theus_buf buf;
  theus_view view = {.struct_size = sizeof view};
  theus_update update = {.struct_size = sizeof update, .op = THEUS_SET_HEAVY, .path = "grid"};
  uint64_t version;
  OK(theus_alloc(engine, "grid", THEUS_F64, 2, shape, 0, &buf, &err));
  OK(theus_view_get(buf, &view, &err));
  CHECK(view.nbytes == 500 * 400 * 8 && view.strides[0] == 3200 && view.strides[1] == 8);
  CHECK(view.flags == THEUS_VIEW_WRITABLE && strcmp(view.descr, "<f8") == 0);
  CHECK(((uintptr_t)view.data & 63) == 0);
  double *data = view.data;
  for (int i = 0; i < 500 * 400; i++) data[i] = 0.5;
  update.buf = buf;
  OK(theus_cas(engine, 0, &update, 1, 0, &version, &err));
  CHECK(version == 1);
  OK(theus_view_get(buf, &view, &err));
  CHECK(view.flags == THEUS_VIEW_PUBLISHED && view.version == 1);
  data[0] = 1e9; /* too late: reaches nobody */
  expect_json(start(engine, "c_tasks:total", "{\"key\": \"grid\"}"), "100000.0");
  OK(theus_release(buf));
}

static void failures_are_described(theus_engine engine) {
  theus_value value = {.struct_size = sizeof value};
  const void *text;
  uint64_t length;
  theus_task task = start(engine, "c_tasks:fail", "{\"text\": \"on purpose\"}");
  OK(theus_wait(task, 60000, &err));
  FAILS(THEUS_TASK_FAILED, theus_result(task, &value, &err));
  CHECK(strstr(err.message, "ValueError: on purpose") != NULL);
  OK(theus_blob_data(err.detail, &text, &length));
  CHECK(memmem(text, length, "Traceback", 9) != NULL);
  OK(theus_release(err.detail));
  if (value.blob != 0) OK(theus_release(value.blob));
  OK(theus_release(task));
  FAILS(THEUS_EBADF, theus_release(task));

  task = start(engine, "c_tasks:die", "{}");
  OK(theus_wait(task, 60000, &err));
  FAILS(THEUS_TASK_CRASHED, theus_result(task, &value, &err));
  CHECK(strstr(err.message, "exited with status 3") != NULL);
  OK(theus_release(err.detail));
  OK(theus_release(task));

  task = start(engine, "c_tasks:hang", "{}");
  FAILS(THEUS_ETIMEDOUT, theus_wait(task, 0, &err));
  FAILS(THEUS_EPENDING, theus_result(task, &value, &err));
  OK(theus_cancel(task, &err));
  OK(theus_wait(task, 60000, &err));
  FAILS(THEUS_TASK_CANCELLED, theus_result(task, &value, &err));
  OK(theus_release(task));
}

static void state_is_versioned(theus_engine engine) {
  theus_snap snap;
  theus_blob blob;
  const void *text;
  uint64_t length, version;
  theus_update update = {.struct_size = sizeof update,
                         .op = THEUS_SET,
                         .path = "run.step",
                         .codec = THEUS_CODEC_JSON,
                         .ptr = "3",
                         .len = 1};
  OK(theus_snapshot(engine, &snap, &version, &err));
  FAILS(THEUS_ENOTFOUND, theus_get_json(snap, "run", &blob, &err));
  OK(theus_release(snap));
  OK(theus_cas(engine, version, &update, 1, THEUS_STRICT, NULL, &err));
  FAILS(THEUS_ECONFLICT, theus_cas(engine, version, &update, 1, 0, NULL, &err));
  CHECK(err.detail != 0);
  OK(theus_release(err.detail));
  theus_update depends[] = {
      {.struct_size = sizeof update, .op = THEUS_CHECK, .path = "run"},
      {.struct_size = sizeof update, .op = THEUS_CHECK_HEAVY, .path = "no such key"},
      {.struct_size = sizeof update, .op = THEUS_DELETE, .path = "another"},
  };
  FAILS(THEUS_ECONFLICT, theus_cas(engine, version, depends, 3, 0, NULL, &err));
  OK(theus_release(err.detail));
  uint64_t now = 0;
  OK(theus_cas(engine, version + 1, depends, 2, 0, &now, &err));
  CHECK(now == version + 1);
  OK(theus_snapshot(engine, &snap, NULL, &err));
  OK(theus_get_json(snap, "run", &blob, &err));
  OK(theus_blob_data(blob, &text, &length));
  CHECK(length == 10 && memcmp(text, "{\"step\":3}", 10) == 0);
  OK(theus_release(blob));
  OK(theus_release(snap));
}

static void workers_write_an_output(theus_engine engine) {
  theus_buf out, other;
  theus_snap snap;
  theus_view view = {.struct_size = sizeof view};
  int64_t n = 200;
  const char *parts[] = {"{\"start\": 0, \"stop\": 150}", "{\"start\": 150, \"stop\": 200}"};
  theus_task tasks[2];
  FAILS(THEUS_EINVAL, theus_alloc(engine, "out", THEUS_F64, 1, &n, THEUS_OUTPUT | THEUS_LIVE, &other, &err));
  OK(theus_alloc(engine, "out", THEUS_F64, 1, &n, THEUS_OUTPUT, &out, &err));
  OK(theus_view_get(out, &view, &err));
  double *early = view.data;
  for (int i = 0; i < 2; i++) {
    theus_call call;
    theus_span in = {parts[i], strlen(parts[i])};
    memset(&call, 0, sizeof call);
    call.struct_size = sizeof call;
    call.target = "c_tasks:write_part";
    call.in_codec = THEUS_CODEC_JSON;
    call.out_codec = THEUS_CODEC_JSON;
    call.in = &in;
    call.nin = 1;
    call.bufs = &out;
    call.nbufs = 1;
    OK(theus_execute(engine, &call, &tasks[i], &err));
  }
  for (int i = 0; i < 2; i++) expect_json(tasks[i], "null");
  CHECK(early[0] == 0 && early[149] == 149 && early[199] == 199); /* seen as it is written */
  theus_update publish = {.struct_size = sizeof publish, .op = THEUS_SET_HEAVY, .path = "out", .buf = out};
  OK(theus_cas(engine, THEUS_ANY_VERSION, &publish, 1, 0, NULL, &err));
  early[3] = -1;
  OK(theus_view_get(out, &view, &err));
  CHECK((view.flags & THEUS_VIEW_PUBLISHED) && !(view.flags & THEUS_VIEW_WRITABLE));
  CHECK(((const double *)view.data)[3] == 3);
  OK(theus_snapshot(engine, &snap, NULL, &err));
  OK(theus_get(snap, "out", &other, &err));
  OK(theus_view_get(other, &view, &err));
  CHECK(((const double *)view.data)[3] == 3 && ((const double *)view.data)[199] == 199);
  OK(theus_release(other));
  OK(theus_release(snap));
  OK(theus_release(out));
}

static void ends_are_announced(theus_engine engine) {
  theus_queue queue;
  theus_event event;
  theus_call call;
  theus_task task;
  int32_t fd;
  uint64_t n = 0;
  memset(&call, 0, sizeof call);
  OK(theus_queue_open(engine, 0, &queue, &err));
  OK(theus_queue_fd(queue, &fd, &err));
  call.struct_size = sizeof call;
  call.target = "operator:not_";
  call.in_codec = THEUS_CODEC_RAW;
  call.out_codec = THEUS_CODEC_JSON;
  theus_span in = {"", 0};
  call.in = &in;
  call.nin = 1;
  call.queue = queue;
  call.tag = 99;
  OK(theus_execute(engine, &call, &task, &err));
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  CHECK(poll(&ready, 1, 60000) == 1);
  OK(theus_poll(queue, &event, 1, &n, &err));
  CHECK(n == 1 && event.task == task && event.tag == 99 && event.status == THEUS_OK);
  expect_json(task, "true");
  OK(theus_release(queue));
}

int main(void) {
  theus_engine engine;
  theus_options options = test_options();
  char path[4096], python_path[4096];
  const char *env[] = {path, python_path, NULL};
  snprintf(path, sizeof path, "PATH=%s", getenv("PATH"));
  snprintf(python_path, sizeof python_path, "PYTHONPATH=%s", test_directory());
  options.env = env;
  int descriptors = open_descriptors();
  CHECK(theus_abi_version() == THEUS_ABI_VERSION);
  OK(theus_open(&options, &engine, &err));
  FAILS(THEUS_EINVAL, theus_release(engine));
  small_results_take_one_call(engine);
  results_are_small_up_to_a_size(engine);
  one_call_runs_a_task(engine);
  results_come_with_their_events(engine);
  arrays_are_shared(engine);
  failures_are_described(engine);
  state_is_versioned(engine);
  workers_write_an_output(engine);
  ends_are_announced(engine);
  OK(theus_close(engine, 0, &err));
  OK(theus_close(engine, 0, &err));
  OK(theus_release(engine));
  FAILS(THEUS_EBADF, theus_close(engine, 0, &err));
  CHECK(memfd_mappings() == 0);
  CHECK(no_more_descriptors_than(descriptors));
  puts("test_embed: 1 passed, 0 failed");
  return 0;
}
