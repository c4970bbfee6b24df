/* Versions one after the other: a stream of frames, of which so many are in use at once, and a window on rows that are appended. */
#include "check.h"

static theus_error err = ERROR_INIT;

static uint64_t publish(theus_engine engine, const char *key, theus_buf buf) {
  theus_update update = {.struct_size = sizeof update, .op = THEUS_SET_HEAVY, .path = key, .buf = buf};
  uint64_t version;
  OK(theus_cas(engine, THEUS_ANY_VERSION, &update, 1, 0, &version, &err));
  return version;
}

static double *data_of(theus_buf buf, int64_t rows) {
  theus_view view = {.struct_size = sizeof view};
  OK(theus_view_get(buf, &view, &err));
  CHECK(view.shape[0] == rows);
  return view.data;
}

static uint64_t show(theus_engine engine, theus_stream frames, double value) {
  theus_buf buf;
  OK(theus_stream_next(frames, 0, &buf, &err));
  data_of(buf, 100)[0] = value;
  uint64_t version = publish(engine, "camera", buf);
  OK(theus_release(buf));
  return version;
}

static void frames_wait_for_their_readers(theus_engine engine, uint32_t flags) {
  const int64_t shape[] = {100};
  theus_stream frames;
  theus_snap reader;
  theus_buf buf;
  const void *detail;
  uint64_t length;
  OK(theus_stream_open(engine, "camera", "<f8", 8, 1, shape, 2, flags, &frames, &err));
  show(engine, frames, 1);
  OK(theus_snapshot(engine, &reader, NULL, &err));
  uint64_t version = show(engine, frames, 2);
  if (flags & THEUS_DROP_OLDEST) {
    CHECK(show(engine, frames, 3) == version + 1);
  } else {
    FAILS(THEUS_ETIMEDOUT, theus_stream_next(frames, 1, &buf, &err));
    CHECK(buf == 0 && strstr(err.message, "heavy[\"camera\"] keeps 2 frames") != NULL);
    OK(theus_blob_data(err.detail, &detail, &length));
    CHECK(memmem(detail, length, "\"versions\":[", 12) != NULL);
    OK(theus_release(err.detail));
  }
  OK(theus_get(reader, "camera", &buf, &err));
  CHECK(data_of(buf, 100)[0] == 1);
  OK(theus_release(buf));
  OK(theus_release(reader));
  CHECK(show(engine, frames, 4) > version);
  OK(theus_release(frames));
  FAILS(THEUS_EBADF, theus_stream_next(frames, 0, &buf, &err));
}

static void windows_show_the_newest_rows(theus_engine engine) {
  const int64_t row[] = {2};
  const double rows[][2] = {{1, 10}, {2, 20}, {3, 30}, {4, 40}, {5, 50}};
  theus_window window;
  theus_buf first, second;
  OK(theus_window_open(engine, "ticks", "<f8", 8, 1, row, 3, &window, &err));
  OK(theus_window_append(window, rows, 2, &first, &err));
  publish(engine, "ticks", first);
  OK(theus_window_append(window, rows + 2, 3, &second, &err));
  publish(engine, "ticks", second);
  CHECK(memcmp(data_of(first, 2), rows, sizeof rows[0] * 2) == 0);
  CHECK(memcmp(data_of(second, 3), rows + 2, sizeof rows[0] * 3) == 0);
  OK(theus_release(window));
  OK(theus_release(first));
  CHECK(data_of(second, 3)[5] == 50);
  OK(theus_release(second));
}

static void nonsense_is_refused(theus_engine engine) {
  const int64_t shape[] = {2};
  uint64_t out;
  FAILS(THEUS_EINVAL, theus_stream_open(engine, "k", "<f8", 8, 1, shape, 1, 0, &out, &err));
  FAILS(THEUS_EINVAL, theus_stream_open(engine, "k", "<f8", 8, 1, shape, 2, 8, &out, &err));
  FAILS(THEUS_EINVAL, theus_stream_open(engine, NULL, "<f8", 8, 1, shape, 2, 0, &out, &err));
  FAILS(THEUS_EINVAL, theus_stream_open(engine, "k", NULL, 8, 1, shape, 2, 0, &out, &err));
  FAILS(THEUS_EINVAL, theus_window_open(engine, "k", "<f8", 8, 1, NULL, 1, &out, &err));
  FAILS(THEUS_EINVAL, theus_window_open(engine, "k", "<f8", 8, 1, shape, 0, &out, &err));
  FAILS(THEUS_EINVAL, theus_window_open(engine, "k", "<f8", 8, 1, shape, UINT64_MAX, &out, &err));
  FAILS(THEUS_EINVAL, theus_window_open(engine, "k", "<f8", 8, 1, shape, 1, NULL, &err));
  OK(theus_window_open(engine, "k", "<f8", 8, 1, shape, 1, &out, &err));
  theus_buf buf;
  FAILS(THEUS_EINVAL, theus_window_append(out, NULL, 1, &buf, &err));
  OK(theus_release(out));
  FAILS(THEUS_EBADF, theus_window_append(out, shape, 1, &buf, &err));
}

int main(void) {
  theus_engine engine;
  theus_options options = test_options();
  int descriptors = open_descriptors();
  options.flags = THEUS_OPEN_LAZY;
  OK(theus_open(&options, &engine, &err));
  frames_wait_for_their_readers(engine, 0);
  frames_wait_for_their_readers(engine, THEUS_DROP_OLDEST);
  windows_show_the_newest_rows(engine);
  nonsense_is_refused(engine);
  OK(theus_close(engine, 0, &err));
  OK(theus_release(engine));
  CHECK(memfd_mappings() == 0);
  CHECK(no_more_descriptors_than(descriptors));
  printf("test_series: 1 passed, 0 failed\n");
  return 0;
}
