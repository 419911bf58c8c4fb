/* Between a program and the C library: its wall clock and its boot clock are off by as many seconds as a file says that
 * is mapped into memory. The monotonic clock is left alone, as it is when somebody sets a machine's clock (wall alone),
 * when a virtual machine is paused (wall alone), and when a machine sleeps (both). What the kernel says of this start of
 * the machine is read from a file of the test's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BOOT_ID "/proc/sys/kernel/random/boot_id"

static volatile int64_t *offsets; /* wall, boot */

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("WALL_CLOCK_OFFSET");
  int file = path ? syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) abort();
  offsets = mmap(NULL, 2 * sizeof *offsets, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (offsets == MAP_FAILED) abort();
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, clock, now);
  if (failed || !offsets) return failed;
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += offsets[0];
  if (clock == CLOCK_BOOTTIME) now->tv_sec += offsets[1];
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec t;
  int failed = clock_gettime(CLOCK_REALTIME, &t);
  now->tv_sec = t.tv_sec;
  now->tv_usec = t.tv_nsec / 1000;
  return failed;
}

time_t time(time_t *now) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  if (now) *now = t.tv_sec;
  return t.tv_sec;
}

static int opened(const char *path, int flags, va_list more) {
  const char *other = getenv("BOOT_ID_FILE");
  int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0;
  if (other && path && !strcmp(path, BOOT_ID)) path = other;
  return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  int file = opened(path, flags, more);
  va_end(more);
  return file;
}

int open64(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  int file = opened(path, flags | O_LARGEFILE, more);
  va_end(more);
  return file;
}
