#include "zr.h"
#include <stdatomic.h>
#include <time.h>

static int64_t now_ns(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t zr_tick(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// What a spin measures its time with. On a machine without a clock that user
// space can read (a VM on the HPET), clock_gettime is a system call and a device
// access that stops the other processors for a moment; the time stamp counter is
// neither. Its rate is learned from the clock; until it is known, and elsewhere,
// the clock is read. A counter that is not steady makes a spin shorter or
// longer, no more: the difference below is unsigned, so one that goes back ends it.
#if defined(__x86_64__) || defined(__i386__)
static _Atomic uint64_t base_ticks, base_ns, ticks_per_us;

static uint64_t rate(uint64_t ticks) {
	uint64_t r = atomic_load_explicit(&ticks_per_us, memory_order_relaxed);
	if (r) return r;
	uint64_t t0 = atomic_load_explicit(&base_ticks, memory_order_acquire), ns = (uint64_t)now_ns();
	if (!t0) {
		uint64_t none = 0;
		if (atomic_compare_exchange_strong(&base_ns, &none, ns)) atomic_store_explicit(&base_ticks, ticks, memory_order_release);
		return 0;
	}
	uint64_t us = (ns - atomic_load_explicit(&base_ns, memory_order_relaxed)) / 1000;
	if (us < 1000 || ticks <= t0) return 0;
	r = (ticks - t0) / us;
	atomic_store_explicit(&ticks_per_us, r, memory_order_relaxed);
	return r;
}

static inline uint64_t ticks_now(void) { return __builtin_ia32_rdtsc(); }
#else
static uint64_t rate(uint64_t ticks) { (void)ticks; return 0; }
static inline uint64_t ticks_now(void) { return 0; }
#endif

struct limit { uint64_t start, ticks; int64_t end; };

static void limit_set(struct limit *l, int64_t ns) {
	if (ns > 3600000000000) ns = 3600000000000;  // an hour: the products below must not overflow
	l->start = ticks_now();
	uint64_t r = rate(l->start);
	l->ticks = r * (uint64_t)(ns / 1000 + 1);
	l->end = r ? 0 : now_ns() + ns;
}

static int limit_over(const struct limit *l) { return l->ticks ? ticks_now() - l->start > l->ticks : now_ns() >= l->end; }

// Polls a and, if there is one, b in turn until want completions are there, wc
// is full or ns nanoseconds are over: one crossing instead of one for each empty
// poll. With ns <= 0 it polls once. An error is returned only with nothing else.
int zr_spin(struct ibv_cq *a, struct ibv_cq *b, int n, struct ibv_wc *wc, int want, int64_t ns) {
	int have = 0, timed = 0;
	struct limit l;
	if (want > n) want = n;
	for (;;) {
		for (int i = 0; i < 64; i++) {
			int k = ibv_poll_cq(a, n - have, wc + have);
			if (k > 0) have += k;
			if (k >= 0 && b && have < n) {
				k = ibv_poll_cq(b, n - have, wc + have);
				if (k > 0) have += k;
			}
			if (k < 0) return have ? have : k;
			if (have >= want || ns <= 0) return have;
		}
		if (!timed) {
			limit_set(&l, ns);
			timed = 1;
		} else if (limit_over(&l)) {
			return have;
		}
	}
}
