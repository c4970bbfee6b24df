/* A process that may start no more threads gets an error when it opens an engine: the Go runtime, refused a
 * thread, would end it. */
#include "check.h"

#include <sys/resource.h>
#include <unistd.h>

int main(void) {
  theus_error err = ERROR_INIT;
  theus_engine engine = 7;
  theus_options options = test_options();
  struct rlimit before, none;
  options.flags = THEUS_OPEN_LAZY;
  if (geteuid() == 0) CHECK(setgid(65534) == 0 && setuid(65534) == 0); /* root is exempt from the limit */
  CHECK(getrlimit(RLIMIT_NPROC, &before) == 0);
  none = before;
  none.rlim_cur = 1;
  CHECK(setrlimit(RLIMIT_NPROC, &none) == 0);
  FAILS(THEUS_ELIMIT, theus_open(&options, &engine, &err));
  CHECK(engine == 0 && strstr(err.message, "threads") != NULL && strstr(err.message, "ulimit -u") != NULL);
  if (err.detail != 0) OK(theus_release(err.detail));
  CHECK(setrlimit(RLIMIT_NPROC, &before) == 0);
  OK(theus_open(&options, &engine, &err));
  OK(theus_close(engine, 0, &err));
  OK(theus_release(engine));
  puts("test_threads: 1 passed, 0 failed");
  return 0;
}
