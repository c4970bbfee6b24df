/* A process that may start no more threads gets an error when it opens an engine: the Go runtime, refused a
 * thread, would end it. */
#include "check.h"

#include <sys/resource.h>

static int own_threads(void) {
  int count = 0;
  DIR *tasks = opendir("/proc/self/task");
  CHECK(tasks != NULL);
  for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) count += entry->d_name[0] != '.';
  closedir(tasks);
  return count;
}

/* The library has threads for the first engine, which may all be waiting: a second one needs as many again. */
static void refuse_a_second(theus_engine first, const theus_options *options) {
  theus_error err = ERROR_INIT;
  theus_engine second = 7;
  theus_buf buf = 0;
  int64_t shape = 3;
  struct rlimit before, tight;
  CHECK(getrlimit(RLIMIT_NPROC, &before) == 0);
  tight = before;
  tight.rlim_cur = (rlim_t)own_threads() + 5;
  CHECK(setrlimit(RLIMIT_NPROC, &tight) == 0);
  FAILS(THEUS_ELIMIT, theus_open(options, &second, &err));
  CHECK(second == 0 && strstr(err.message, "threads") != NULL);
  if (err.detail != 0) OK(theus_release(err.detail));
  OK(theus_alloc(first, "x", THEUS_F64, 1, &shape, 0, &buf, &err));
  OK(theus_release(buf));
  CHECK(setrlimit(RLIMIT_NPROC, &before) == 0);
  OK(theus_open(options, &second, &err));
  OK(theus_close(second, 0, &err));
  OK(theus_release(second));
}

int main(void) {
  theus_error err = ERROR_INIT;
  theus_engine engine = 7;
  theus_options options = test_options();
  struct rlimit before, none;
  int descriptors = open_descriptors();
  options.flags = THEUS_OPEN_LAZY;
  int alone = geteuid() == 0; /* root is exempt from the limit; nobody else has this user */
  if (alone) CHECK(setgid(65534) == 0);
  if (alone && setuid((uid_t)(100000 + getpid())) != 0) { /* a namespace without that user */
    CHECK(setuid(65534) == 0);
    alone = 0;
  }
  CHECK(getrlimit(RLIMIT_NPROC, &before) == 0);
  none = before;
  none.rlim_cur = 1;
  CHECK(setrlimit(RLIMIT_NPROC, &none) == 0);
  FAILS(THEUS_ELIMIT, theus_open(&options, &engine, &err));
  CHECK(engine == 0 && strstr(err.message, "threads") != NULL && strstr(err.message, "ulimit -u") != NULL);
  if (err.detail != 0) OK(theus_release(err.detail));
  CHECK(setrlimit(RLIMIT_NPROC, &before) == 0);
  OK(theus_open(&options, &engine, &err));
  if (alone) refuse_a_second(engine, &options);
  OK(theus_close(engine, 0, &err));
  OK(theus_release(engine));
  CHECK(memfd_mappings() == 0);
  CHECK(no_more_descriptors_than(descriptors));
  puts("test_threads: 1 passed, 0 failed");
  return 0;
}
