#include <endian.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "peer.h"

static struct conn c;

// done waits for the completion of one request and passes over what ends by the
// way: control messages, and receives that are flushed.
static struct ibv_wc *done(uint64_t id)
{
	for (;;) {
		struct ibv_wc *w = next_wc(&c);
		if (w->wr_id == id)
			return w;
		bool flushed = id_kind(w->wr_id) == ID_RECV && w->status == IBV_WC_WR_FLUSH_ERR;
		CHECK(flushed || (id_kind(w->wr_id) == ID_CTL && w->status == IBV_WC_SUCCESS), "completion of %" PRIx64 ": %s", w->wr_id, ibv_wc_status_str(w->status));
	}
}

static void want(struct ibv_wc *w, enum ibv_wc_status s, const char *what)
{
	CHECK(w->status == s, "%s: %s instead of %s", what, ibv_wc_status_str(w->status), ibv_wc_status_str(s));
	if (s != IBV_WC_SUCCESS)
		sums.expected_errors++;
}

// What a server must refuse, one connection each.
static const struct {
	const char *name;
	enum ibv_wr_opcode op;
	uint32_t len;
	enum { BAD_KEY, BEHIND, NO_RIGHT, TOO_LONG } how;
	enum ibv_wc_status status;
} cases[] = {
	{"WRITE, bad rkey", IBV_WR_RDMA_WRITE, 100, BAD_KEY, IBV_WC_REM_ACCESS_ERR},
	{"WRITE of several packets, bad rkey", IBV_WR_RDMA_WRITE, 20000, BAD_KEY, IBV_WC_REM_ACCESS_ERR},
	{"WRITE_IMM, bad rkey", IBV_WR_RDMA_WRITE_WITH_IMM, 100, BAD_KEY, IBV_WC_REM_ACCESS_ERR},
	{"READ, bad rkey", IBV_WR_RDMA_READ, 20000, BAD_KEY, IBV_WC_REM_ACCESS_ERR},
	{"FETCH_ADD, bad rkey", IBV_WR_ATOMIC_FETCH_AND_ADD, 8, BAD_KEY, IBV_WC_REM_ACCESS_ERR},
	{"CAS, bad rkey", IBV_WR_ATOMIC_CMP_AND_SWP, 8, BAD_KEY, IBV_WC_REM_ACCESS_ERR},
	{"WRITE behind the end", IBV_WR_RDMA_WRITE, 100, BEHIND, IBV_WC_REM_ACCESS_ERR},
	{"READ behind the end", IBV_WR_RDMA_READ, 100, BEHIND, IBV_WC_REM_ACCESS_ERR},
	{"WRITE to what may be read", IBV_WR_RDMA_WRITE, 100, NO_RIGHT, IBV_WC_REM_ACCESS_ERR},
	{"READ of what may be written", IBV_WR_RDMA_READ, 100, NO_RIGHT, IBV_WC_REM_ACCESS_ERR},
	{"FETCH_ADD to what may be written", IBV_WR_ATOMIC_FETCH_AND_ADD, 8, NO_RIGHT, IBV_WC_REM_ACCESS_ERR},
	{"SEND longer than the receive", IBV_WR_SEND, 0, TOO_LONG, IBV_WC_REM_INV_REQ_ERR},
};
enum { NCASES = sizeof cases / sizeof *cases };

static void provoke(int i)
{
	const char *name = cases[i].name;
	bool reads = cases[i].op == IBV_WR_RDMA_READ, atomic = cases[i].len == 8;
	uint64_t base = reads ? c.peer.ro : atomic ? c.peer.atm : c.peer.win;
	uint64_t size = reads ? c.peer.ro_len : c.peer.win_len;
	uint32_t key = reads ? c.peer.ro_key : atomic ? c.peer.atm_key : c.peer.win_key;
	uint64_t at = base;
	uint32_t len = cases[i].len;
	switch (cases[i].how) {
	case BAD_KEY:
		key ^= 0x5a5a5a5a;
		break;
	case BEHIND:
		at = base + size - len + 1;
		break;
	case NO_RIGHT:
		at = reads ? c.peer.win : c.peer.ro;
		key = reads ? c.peer.win_key : c.peer.ro_key;
		if (atomic)
			at = c.peer.win, key = c.peer.win_key;
		break;
	case TOO_LONG:
		len = c.slot + 1;
	}
	struct ibv_sge sge = {(uintptr_t)c.src.p, len, c.src.mr->lkey};
	// First something that is allowed: one byte into the window's first byte.
	memset(c.src.p, 0x77, c.src.len);
	struct ibv_sge one = {(uintptr_t)c.src.p, 1, c.src.mr->lkey};
	struct ibv_send_wr good = {
		.wr_id = wrid(ID_OP, 1), .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED, .sg_list = &one, .num_sge = 1,
		.wr.rdma = {c.peer.win, c.peer.win_key},
	};
	post(&c, &good);
	want(done(wrid(ID_OP, 1)), IBV_WC_SUCCESS, "an allowed WRITE");
	struct ibv_send_wr bad = {.wr_id = wrid(ID_OP, 2), .opcode = cases[i].op, .send_flags = IBV_SEND_SIGNALED, .sg_list = &sge, .num_sge = 1};
	if (atomic)
		bad.wr.atomic.remote_addr = at, bad.wr.atomic.rkey = key, bad.wr.atomic.compare_add = 0, bad.wr.atomic.swap = 7;
	else
		bad.wr.rdma.remote_addr = at, bad.wr.rdma.rkey = key;
	// What follows is flushed.
	struct ibv_send_wr after = good;
	after.wr_id = wrid(ID_OP, 3);
	bad.next = &after;
	post(&c, &bad);
	struct ibv_wc *w = done(wrid(ID_OP, 2));
	// rxe calls it an operational error when the receive ends within a packet.
	if (cases[i].how == TOO_LONG && w->status == IBV_WC_REM_OP_ERR)
		w->status = cases[i].status;
	want(w, cases[i].status, name);
	want(done(wrid(ID_OP, 3)), IBV_WC_WR_FLUSH_ERR, "the request behind it");
	sums.ops += 3;
}

// endure checks that nothing but the first byte changed.
static void endure(int i)
{
	uint8_t *w = c.win.p;
	CHECK(w[0] == 0x77, "%s: the allowed WRITE before it is not there", cases[i].name);
	for (size_t k = 1; k < c.win.len; k++)
		CHECK(w[k] == 0, "%s: byte %zu of the window changed", cases[i].name, k);
	for (size_t k = 0; k < COUNTERS * 8; k++)
		CHECK(c.atm.p[k] == 0, "%s: a counter changed", cases[i].name);
	CHECK(differs(c.ro.p, c.ro.len, draw(me(), 0, 10), 0) < 0, "%s: memory that may be read changed", cases[i].name);
	if (cases[i].how != TOO_LONG)
		return;
	// The specification has LOC_LEN_ERR for the receive; rxe one of the others.
	struct ibv_wc *r = next_wc(&c);
	while (id_kind(r->wr_id) != ID_RECV)
		r = next_wc(&c);
	CHECK(r->status == IBV_WC_LOC_LEN_ERR || r->status == IBV_WC_REM_INV_REQ_ERR || r->status == IBV_WC_LOC_QP_OP_ERR, "the short receive: %s", ibv_wc_status_str(r->status));
}

void test_refuse(void)
{
	CHECK(o.max >= 20000, "-max of refuse is at least 20000");
	for (int i = 0; i < NCASES; i++) {
		struct shape s = {.nrecv = 4, .first_recv = 4, .nslots = 2, .sq = 8, .rnr_retry = 7};
		conn_open(&c, &s);
		hello(&c);
		if (!o.server)
			provoke(i);
		conn_settle(&c);
		if (o.server)
			endure(i);
		conn_end(&c);
	}
}

// The server has no receive when the client sends. It comes late, and all is
// well, or never, and the client's retries run out.
void test_rnr(void)
{
	for (int i = 0; i < 2; i++) {
		struct shape s = {.nrecv = 8, .first_recv = 1, .nslots = 4, .sq = 8, .rnr_retry = i ? 0 : 7};
		conn_open(&c, &s);
		hello(&c);
		if (!o.server) {
			for (int k = 0; k < 4; k++) {
				fill(c.src.p + k * c.slot, o.max, draw(me(), k, 13), 0);
				struct ibv_sge sge = {(uintptr_t)(c.src.p + k * c.slot), o.max, c.src.mr->lkey};
				struct ibv_send_wr wr = {.wr_id = wrid(ID_OP, k), .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED, .sg_list = &sge, .num_sge = 1};
				post(&c, &wr);
				sums.ops++;
			}
			want(done(wrid(ID_OP, 0)), i ? IBV_WC_RNR_RETRY_EXC_ERR : IBV_WC_SUCCESS, "a SEND without a receive");
			for (int k = 1; k < 4; k++)
				want(done(wrid(ID_OP, k)), i ? IBV_WC_WR_FLUSH_ERR : IBV_WC_SUCCESS, "a SEND behind it");
		} else if (i == 0) {
			usleep(150000);
			for (int k = 0; k < 4; k++)
				post_recv(&c, k);
			for (int k = 0; k < 4; k++) {
				struct ibv_wc *w = done(wrid(ID_RECV, k));
				want(w, IBV_WC_SUCCESS, "a late receive");
				CHECK(w->byte_len == o.max && differs(c.recv.p + k * c.slot, o.max, draw(!me(), k, 13), 0) < 0, "message %d is damaged", k);
				sums.messages++;
			}
		}
		conn_end(&c);
	}
}
