/* What the C tests share: a check that says where it failed, and calls that must succeed. */
#ifndef THEUS_TESTS_CHECK_H
#define THEUS_TESTS_CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem, realpath */
#endif

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "theus.h"

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                \
    }                                                                         \
  } while (0)

/* Calls with an error struct named err in scope. */
#define OK(call)                                                        \
  do {                                                                  \
    int32_t status_ = (call);                                           \
    if (status_ != THEUS_OK) {                                          \
      fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call, \
              theus_status_name(status_), err.message);                 \
      exit(1);                                                          \
    }                                                                   \
  } while (0)

#define FAILS(expected, call)                                                   \
  do {                                                                          \
    int32_t status_ = (call);                                                   \
    if (status_ != (expected)) {                                                \
      fprintf(stderr, "%s:%d: %s gave %s, not %s\n", __FILE__, __LINE__, #call, \
              theus_status_name(status_), #expected);                           \
      exit(1);                                                                  \
    }                                                                           \
  } while (0)

#define ERROR_INIT {sizeof(theus_error), 0, 0, ""}

/* Options for an engine whose workers run the interpreter of the tests. */
static inline theus_options test_options(void) {
  theus_options options;
  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  options.workers = 2;
  options.python = getenv("THEUS_PYTHON");
  return options;
}

/* The absolute path of this directory, where c_tasks.py is. */
static inline const char *test_directory(void) {
  static char path[4096];
  CHECK(realpath(__FILE__, path) != NULL);
  *strrchr(path, '/') = 0;
  return path;
}

/* How many mappings of anonymous shared memory this process has. */
static inline int memfd_mappings(void) {
  char line[4096];
  int count = 0;
  FILE *maps = fopen("/proc/self/maps", "r");
  CHECK(maps != NULL);
  while (fgets(line, sizeof line, maps) != NULL) {
    if (strstr(line, "memfd:") != NULL) count++;
  }
  fclose(maps);
  return count;
}

static inline int ends_with(const char *text, const char *end) {
  size_t length = strlen(text), tail = strlen(end);
  return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* How many descriptors this process has open. Those are not counted that Go's runtime opens once, at some moment, and
 * keeps: of the limits of its cgroup, and one each of what its poller waits with. */
static inline int open_descriptors(void) {
  static const char *const of_go[] = {"/cpu.cfs_quota_us", "/cpu.cfs_period_us", "/cpu.max", "[eventpoll]", "[eventfd]"};
  char target[4096];
  int count = 0, seen[5] = {0};
  DIR *directory = opendir("/proc/self/fd");
  CHECK(directory != NULL);
  for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
    if (entry->d_name[0] == '.') continue;
    ssize_t length = readlinkat(dirfd(directory), entry->d_name, target, sizeof target - 1);
    if (length < 0) continue; /* closed meanwhile by another thread */
    target[length] = 0;
    count++;
    for (int i = 0; i < 5; i++) {
      if (ends_with(target, of_go[i]) && seen[i]++ == 0) count--;
    }
  }
  closedir(directory);
  return count;
}

/* Whether no more descriptors are open than were at first, after waiting for it: threads of the library and of Go's
 * runtime open some for a moment, when it is loaded as well. */
static inline int no_more_descriptors_than(int before) {
  struct timespec moment = {0, 1000000};
  for (int i = 0; i < 60000; i++) {
    if (open_descriptors() <= before) return 1;
    nanosleep(&moment, NULL);
  }
  return 0;
}

#endif
