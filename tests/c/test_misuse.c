/* Nonsense gives a status, never a signal: NULLs, stale handles, impossible sizes, a forked child. */
#include "check.h"

#include <sys/wait.h>

static theus_error err = ERROR_INIT;

static theus_engine open_lazy(void) {
  theus_engine engine;
  theus_options options = test_options();
  options.flags = THEUS_OPEN_LAZY;
  OK(theus_open(&options, &engine, &err));
  return engine;
}

static void null_arguments(theus_engine engine) {
  theus_buf buf = 7;
  theus_update update = {.struct_size = sizeof update, .op = THEUS_SET, .path = NULL};
  theus_call call = {.struct_size = sizeof call};
  const int64_t shape[] = {1};
  FAILS(THEUS_EINVAL, theus_open(NULL, NULL, &err));
  FAILS(THEUS_EINVAL, theus_alloc(engine, "x", THEUS_F64, 1, NULL, 0, &buf, &err));
  CHECK(buf == 0); /* defined on failure too */
  FAILS(THEUS_EINVAL, theus_alloc(engine, "x", THEUS_F64, 1, shape, 0, NULL, &err));
  FAILS(THEUS_EINVAL, theus_alloc_descr(engine, "x", NULL, 8, 1, shape, 0, &buf, &err));
  FAILS(THEUS_EINVAL, theus_edit(engine, NULL, 0, &buf, &err));
  FAILS(THEUS_EINVAL, theus_cas(engine, 0, NULL, 1, 0, NULL, &err));
  FAILS(THEUS_EINVAL, theus_cas(engine, 0, &update, 1, 0, NULL, &err));
  FAILS(THEUS_EINVAL, theus_execute(engine, NULL, NULL, &err));
  FAILS(THEUS_EINVAL, theus_execute(engine, &call, NULL, &err));
  FAILS(THEUS_EINVAL, theus_define(engine, "f", NULL, 3, &buf, &err));
  FAILS(THEUS_EINVAL, theus_snapshot(engine, NULL, NULL, &err));
  FAILS(THEUS_EINVAL, theus_stats(engine, NULL, &err));
  FAILS(THEUS_EBADF, theus_blob_data(0, NULL, NULL));
  FAILS(THEUS_EBADF, theus_view_get(0, NULL, NULL)); /* without an error struct as well */
}

static void impossible_sizes(theus_engine engine) {
  theus_buf buf;
  const int64_t negative[] = {-1}, huge[] = {INT64_MAX, INT64_MAX}, none[] = {0, 5};
  const int64_t larger_than_the_machine[] = {INT64_C(1) << 50};
  theus_view view = {.struct_size = sizeof view};
  FAILS(THEUS_EINVAL, theus_alloc(engine, "x", THEUS_F64, 1, negative, 0, &buf, &err));
  FAILS(THEUS_EINVAL, theus_alloc(engine, "x", THEUS_F64, 2, huge, 0, &buf, &err));
  FAILS(THEUS_EINVAL, theus_alloc(engine, "x", THEUS_F64, 33, huge, 0, &buf, &err));
  FAILS(THEUS_EINVAL, theus_alloc(engine, "x", THEUS_F64, -1, huge, 0, &buf, &err));
  FAILS(THEUS_EINVAL, theus_alloc(engine, "x", 99, 1, none, 0, &buf, &err));
  FAILS(THEUS_EINVAL, theus_alloc(engine, "x", THEUS_F64, 1, none, 0x80, &buf, &err));
  FAILS(THEUS_EHEAP, theus_alloc(engine, "x", THEUS_U8, 1, larger_than_the_machine, 0, &buf, &err));
  CHECK(err.detail != 0);
  OK(theus_release(err.detail));
  OK(theus_alloc(engine, "x", THEUS_F64, 2, none, 0, &buf, &err));
  OK(theus_view_get(buf, &view, &err));
  CHECK(view.nbytes == 0 && view.data != NULL && view.shape[1] == 5);
  OK(theus_release(buf));
  OK(theus_alloc(engine, NULL, THEUS_F64, 0, NULL, 0, &buf, &err)); /* a scalar without a name */
  OK(theus_release(buf));
}

static void stale_and_foreign_handles(theus_engine engine) {
  theus_snap snap;
  theus_buf buf;
  theus_view view = {.struct_size = sizeof view};
  OK(theus_snapshot(engine, &snap, NULL, &err));
  FAILS(THEUS_EBADF, theus_view_get(snap, &view, &err));
  FAILS(THEUS_EBADF, theus_get(engine, "x", &buf, &err));
  FAILS(THEUS_ENOTFOUND, theus_get(snap, "x", &buf, &err));
  OK(theus_release(snap));
  FAILS(THEUS_EBADF, theus_release(snap));
  FAILS(THEUS_EBADF, theus_get(snap, "x", &buf, &err));
  for (uint64_t handle = 0; handle < 100; handle++) FAILS(THEUS_EBADF, theus_release(handle));
  FAILS(THEUS_EBADF, theus_release(UINT64_MAX));
  FAILS(THEUS_EBADF, theus_wait(snap, -1, &err));
  OK(theus_release_later(12345));
}

/* What belongs to one engine is a foreign handle to any other, whichever function it is given to. */
static void handles_of_another_engine(theus_engine engine) {
  theus_engine other = open_lazy();
  const int64_t shape[] = {1};
  theus_buf foreign;
  theus_snap snap;
  theus_function function;
  theus_queue queue, own;
  theus_task task;
  const theus_span code = {"x", 1};
  OK(theus_alloc(other, "x", THEUS_F64, 1, shape, 0, &foreign, &err));
  OK(theus_snapshot(other, &snap, NULL, &err));
  OK(theus_define(other, "f", &code, 1, &function, &err));
  OK(theus_queue_open(other, 0, &queue, &err));
  theus_update update = {
      .struct_size = sizeof update, .op = THEUS_SET_HEAVY, .path = "x", .buf = foreign};
  FAILS(THEUS_EBADF, theus_cas(engine, THEUS_ANY_VERSION, &update, 1, 0, NULL, &err));
  CHECK(strstr(err.message, "\"x\" belongs to another engine") != NULL);
  theus_call call = {
      .struct_size = sizeof call, .target = "os:getpid", .bufs = &foreign, .nbufs = 1};
  FAILS(THEUS_EBADF, theus_execute(engine, &call, &task, &err));
  theus_call at = {.struct_size = sizeof at, .target = "os:getpid", .at = snap};
  FAILS(THEUS_EBADF, theus_execute(engine, &at, &task, &err));
  theus_call code_of = {.struct_size = sizeof code_of, .function = function};
  FAILS(THEUS_EBADF, theus_execute(engine, &code_of, &task, &err));
  theus_call told = {.struct_size = sizeof told, .target = "os:getpid", .queue = queue};
  FAILS(THEUS_EBADF, theus_execute(engine, &told, &task, &err));
  theus_call plain = {.struct_size = sizeof plain, .target = "os:getpid"};
  OK(theus_queue_open(engine, 0, &own, &err));
  OK(theus_execute(engine, &plain, &task, &err));
  FAILS(THEUS_EBADF, theus_announce(task, queue, 0, &err));
  OK(theus_announce(task, own, 0, &err));
  OK(theus_wait(task, 60000, &err));
  OK(theus_release(task));
  OK(theus_release(own));
  OK(theus_release(queue));
  OK(theus_release(function));
  OK(theus_release(foreign));
  OK(theus_release(snap));
  OK(theus_close(other, 0, &err));
  OK(theus_release(other));
}

static void wrong_struct_sizes(theus_engine engine) {
  theus_options options = {0};
  theus_engine other;
  theus_view view = {0};
  theus_buf buf;
  theus_error unset = {0};
  OK(theus_alloc(engine, NULL, THEUS_U8, 0, NULL, 0, &buf, &err));
  FAILS(THEUS_EINVAL, theus_open(&options, &other, &err));
  FAILS(THEUS_EINVAL, theus_view_get(buf, &view, &err));
  FAILS(THEUS_EINVAL, theus_view_get(buf, &view, &unset));
  CHECK(unset.code == 0 && unset.message[0] == 0); /* not written without its size */
  OK(theus_release(buf));
}

static void a_forked_child_is_told(theus_engine engine) {
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    theus_buf buf;
    theus_snap snap;
    const int64_t shape[] = {1};
    alarm(20);
    FAILS(THEUS_EFORKED, theus_alloc(engine, "x", THEUS_F64, 1, shape, 0, &buf, &err));
    CHECK(strstr(err.message, "forked") != NULL);
    FAILS(THEUS_EFORKED, theus_snapshot(engine, &snap, NULL, &err));
    FAILS(THEUS_EFORKED, theus_open(NULL, &engine, &err));
    FAILS(THEUS_EFORKED, theus_release(engine));
    FAILS(THEUS_EFORKED, theus_release_later(engine));
    FAILS(THEUS_EFORKED, theus_close(engine, 0, NULL));
    CHECK(theus_abi_version() == THEUS_ABI_VERSION);
    CHECK(theus_version() != NULL);
    _exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void workers_that_cannot_start(void) {
  theus_engine engine;
  theus_task task;
  theus_value value = {.struct_size = sizeof value};
  theus_options options = test_options();
  theus_call call = {.struct_size = sizeof call, .target = "operator:add"};
  options.python = "/nowhere/python";
  OK(theus_open(&options, &engine, &err));
  int32_t status = theus_execute(engine, &call, &task, &err);
  if (status == THEUS_OK) {
    OK(theus_wait(task, 60000, &err));
    status = theus_result(task, &value, &err);
    OK(theus_release(task));
  }
  CHECK(status == THEUS_ESPAWN);
  CHECK(strstr(err.message, "/nowhere/python") != NULL);
  OK(theus_close(engine, 0, &err));
  FAILS(THEUS_ECLOSED, theus_execute(engine, &call, &task, &err));
  OK(theus_release(engine));
}

int main(void) {
  int descriptors = open_descriptors();
  theus_engine engine = open_lazy();
  null_arguments(engine);
  impossible_sizes(engine);
  stale_and_foreign_handles(engine);
  handles_of_another_engine(engine);
  wrong_struct_sizes(engine);
  a_forked_child_is_told(engine);
  OK(theus_close(engine, 0, &err));
  OK(theus_release(engine));
  workers_that_cannot_start();
  CHECK(memfd_mappings() == 0);
  CHECK(no_more_descriptors_than(descriptors));
  puts("test_misuse: 1 passed, 0 failed");
  return 0;
}
