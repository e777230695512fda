#define _GNU_SOURCE
#include "zr.h"
#include <poll.h>
#include <time.h>

// One crossing for a whole wait: poll, spin, arm, poll again, sleep on the
// channel for at most nap_ns, take the event, poll. The limit on the sleep is
// the way out: the caller looks at its context between calls.
int zr_wait_cq(zr_obj q, zr_obj c, int n, struct ibv_wc *wc, int64_t spin_ns, int64_t nap_ns, struct zr_wait *w) {
	struct ibv_cq *cq = zr_ptr(q);
	struct ibv_comp_channel *ch = zr_ptr(c);
	w->tick = zr_tick();
	int k = ibv_poll_cq(cq, n, wc);
	if (k) return k;
	if (spin_ns > 0) {
		k = zr_spin(cq, NULL, n, wc, 1, spin_ns);
		w->spun = k ? 1 : 2;
		if (k) return k;
	}
	if (!ch) return 0;
	for (;;) {
		if (!w->armed) {
			errno = 0;
			int rc = zr_ret(ibv_req_notify_cq(cq, 0));
			if (rc) return -rc;
			w->armed = 1;
			// A completion between the last poll and the arming raises no event.
			k = ibv_poll_cq(cq, n, wc);
			if (k) return k;
		}
		if (nap_ns <= 0) return 0;
		struct pollfd p = {.fd = ch->fd, .events = POLLIN};
		struct timespec t = {.tv_sec = nap_ns / 1000000000, .tv_nsec = nap_ns % 1000000000};
		if (ppoll(&p, 1, &t, NULL) <= 0) return 0;
		uint64_t cookie;
		int rc = zr_get_cq_event(ch, &cookie);
		if (rc) return rc == EAGAIN ? 0 : -rc;
		if (cookie != (uintptr_t)cq->cq_context) {
			w->other = cookie;
			return 0;
		}
		w->armed = 0;
		k = ibv_poll_cq(cq, n, wc);
		if (k) return k;
		// An event of a completion that an earlier poll took: arm and sleep again.
	}
}
