/*
 * A wall clock that a test can move, for one process.
 *
 * LD_PRELOAD=wallshim.so WALLSHIM=FILE program: the first eight bytes of FILE are an offset in nanoseconds, a signed
 * number in the machine's own order, that is added to CLOCK_REALTIME at every look; it may be written at any time.
 * Monotonic clocks and all waiting stay as they are, as when an administrator or an NTP daemon sets the clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL

typedef int clock_function(clockid_t, struct timespec *);

static const int64_t none = 0;
static const volatile int64_t *offset_ns = &none;
static clock_function *real_clock_gettime;

__attribute__((constructor)) static void begin(void)
{
    real_clock_gettime = (clock_function *)dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("WALLSHIM");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED)
        offset_ns = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    if (!real_clock_gettime) /* another library's constructor came before ours */
        real_clock_gettime = (clock_function *)dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_clock_gettime(clock, at);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t offset = *offset_ns; /* once: it may change under us */
        int64_t ns = at->tv_nsec + offset % NS_PER_S;
        int64_t carry = ns < 0 ? -1 : ns >= NS_PER_S ? 1 : 0;
        at->tv_sec += offset / NS_PER_S + carry;
        at->tv_nsec = ns - carry * NS_PER_S;
    }
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *at, int base)
{
    if (base != TIME_UTC)
        return 0;
    clock_gettime(CLOCK_REALTIME, at);
    return base;
}
