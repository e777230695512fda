#include <endian.h>
#include <inttypes.h>
#include <string.h>

#include "peer.h"

// The server grants a window of type 2B and tells its key; the client writes
// through it and takes it away with SEND_WITH_INV. At last it tries a key that is gone.
//
// rxe of 6.1 gives programs the kernel's bit for an invalidation, which is 4.
enum { WITH_INV = IBV_WC_WITH_INV | 4 };

static struct conn c;

// A message may come before the completion that is waited for; it is kept.
static struct ibv_wc early;
static bool have_early;

static struct ibv_wc done(unsigned kind)
{
	if (kind == ID_RECV && have_early) {
		have_early = false;
		return early;
	}
	for (;;) {
		struct ibv_wc w = *next_wc(&c);
		if (id_kind(w.wr_id) == kind)
			return w;
		CHECK(w.status == IBV_WC_SUCCESS, "completion of %" PRIx64 ": %s", w.wr_id, ibv_wc_status_str(w.status));
		if (id_kind(w.wr_id) == ID_RECV) {
			CHECK(!have_early, "two messages too early");
			early = w;
			have_early = true;
		}
	}
}

static struct ibv_wc good(unsigned kind, const char *what)
{
	struct ibv_wc w = done(kind);
	CHECK(w.status == IBV_WC_SUCCESS, "%s: %s", what, ibv_wc_status_str(w.status));
	return w;
}

static uint32_t length(uint64_t i) { return 1 + draw(1, i, 14) % o.max; }

static void grant(struct ibv_mw *mw, uint64_t i)
{
	uint32_t len = length(i), key = ibv_inc_rkey(mw->rkey);
	uint8_t *at = c.win.p + MARGIN;
	memset(at - CANARY, 0xa5, len + 2 * CANARY);
	struct ibv_send_wr bind = {
		.wr_id = wrid(ID_OP, i), .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED,
		.bind_mw = {.mw = mw, .rkey = key, .bind_info = {c.win.mr, (uintptr_t)at, len, IBV_ACCESS_REMOTE_WRITE}},
	};
	post(&c, &bind);
	mw->rkey = key;
	good(ID_OP, "BIND_MW");
	uint64_t m = htobe64(key);
	memcpy(c.src.p, &m, 8);
	struct ibv_sge sge = {(uintptr_t)c.src.p, 8, c.src.mr->lkey};
	struct ibv_send_wr wr = {.wr_id = wrid(ID_CTL, 1), .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED, .sg_list = &sge, .num_sge = 1};
	post(&c, &wr);
	sums.ops++;
	struct ibv_wc w = good(ID_RECV, "the client's SEND_WITH_INV");
	CHECK(w.wc_flags & WITH_INV && w.invalidated_rkey == key, "window %" PRIu64 ": flags %x, key %x instead of %x", i, w.wc_flags, w.invalidated_rkey, key);
	CHECK(w.byte_len == i % 3, "window %" PRIu64 ": a message of %u bytes", i, w.byte_len);
	CHECK(differs(at, len, draw(0, i, 15), 0) < 0, "window %" PRIu64 ": what was written is damaged", i);
	for (int k = 1; k <= CANARY; k++)
		CHECK(at[-k] == 0xa5 && at[len + k - 1] == 0xa5, "window %" PRIu64 ": wrote outside", i);
	post_recv(&c, id_n(w.wr_id));
	sums.messages++;
	sums.received += len;
}

static void use(uint64_t i)
{
	struct ibv_wc w = good(ID_RECV, "the message with the key");
	uint64_t key;
	memcpy(&key, c.recv.p + id_n(w.wr_id) * c.slot, 8);
	key = be64toh(key);
	post_recv(&c, id_n(w.wr_id));
	uint32_t len = length(i);
	fill(c.src.p, len, draw(0, i, 15), 0);
	struct ibv_sge sge = {(uintptr_t)c.src.p, len, c.src.mr->lkey}, few = {(uintptr_t)c.src.p, i % 3, c.src.mr->lkey};
	struct ibv_send_wr inv = {
		.wr_id = wrid(ID_OP, i), .opcode = IBV_WR_SEND_WITH_INV, .send_flags = IBV_SEND_SIGNALED, .sg_list = &few, .num_sge = i % 3 > 0,
		.invalidate_rkey = key,
	};
	struct ibv_send_wr wr = {
		.wr_id = wrid(ID_OP, i), .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED, .sg_list = &sge, .num_sge = 1,
		.wr.rdma = {c.peer.win + MARGIN, key}, .next = &inv,
	};
	post(&c, &wr);
	good(ID_OP, "WRITE through a window");
	good(ID_OP, "SEND_WITH_INV");
	sums.ops += 2;
	sums.sent += len;
	if (i + 1 < o.n)
		return;
	wr.next = NULL;
	post(&c, &wr);
	struct ibv_wc r = done(ID_OP);
	CHECK(r.status == IBV_WC_REM_ACCESS_ERR, "WRITE through a window that is gone: %s", ibv_wc_status_str(r.status));
	sums.expected_errors++;
}

void test_inv(void)
{
	struct shape s = {.nrecv = 4, .first_recv = 4, .nslots = 1, .sq = 8, .rnr_retry = 7};
	conn_open(&c, &s);
	struct ibv_mw *mw = NULL;
	if (o.server) {
		mw = ibv_alloc_mw(c.pd, IBV_MW_TYPE_2);
		CHECK(mw, "ibv_alloc_mw: %m");
	}
	hello(&c);
	for (uint64_t i = 0; i < o.n; i++) {
		if (o.server)
			grant(mw, i);
		else
			use(i);
	}
	conn_settle(&c);
	if (mw)
		CHECK(!ibv_dealloc_mw(mw), "ibv_dealloc_mw: %m");
	conn_end(&c);
}
