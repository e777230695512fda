#include <endian.h>
#include <inttypes.h>
#include <string.h>

#include "peer.h"

// A round is at most o.depth operations under way at once, each in a slot of its
// own, and a control message at the end; the peer answers it when all is in place.
static struct conn c;

static struct {
	uint64_t round, rounds;
	unsigned done, total; // completions of this round, its end included
	bool posted, ok, fin_sent, fin_done;
	uint64_t model[COUNTERS], old[64];
} init;

static struct {
	uint64_t round, rounds, next; // next: operation that may arrive
	bool fin;
	uint64_t model[COUNTERS];
} resp;

static uint64_t first(uint64_t round) { return round * o.depth; }
static uint64_t last(uint64_t round)
{
	uint64_t n = first(round + 1);
	return n < o.n ? n : o.n;
}

static uint8_t *place(struct region *r, uint64_t i, const struct op *p)
{
	return r->p + i % o.depth * c.slot + MARGIN + p->off;
}

static void fence(uint8_t *p, size_t n)
{
	memset(p - CANARY, 0xa5, CANARY);
	memset(p + n, 0xa5, CANARY);
}

static void fenced(const char *what, uint64_t i, const uint8_t *p, size_t n)
{
	for (int k = 1; k <= CANARY; k++)
		CHECK(p[-k] == 0xa5 && p[n + k - 1] == 0xa5, "%s %" PRIu64 " of %zu bytes: wrote outside of it, %d away", what, i, n, k);
}

static void same(const char *what, uint64_t i, const uint8_t *p, size_t n, uint64_t key, uint64_t from)
{
	long at = differs(p, n, key, from);
	CHECK(at < 0, "%s %" PRIu64 " of %zu bytes: byte %ld is wrong", what, i, n, at);
}

static uint64_t read_at(const struct op *p, uint64_t ro_len) { return p->at % (ro_len - p->len + 1); }

static void post_op(uint64_t i)
{
	struct op p = plan(me(), i);
	uint8_t *buf = place(&c.src, i, &p);
	uint32_t k = c.src.mr->lkey, a = p.len / 3, b = p.len - p.len / 4;
	struct ibv_sge sge[3] = {{(uintptr_t)buf, p.len, k}};
	if (p.nsge == 2)
		sge[0].length = a, sge[1] = (struct ibv_sge){(uintptr_t)buf + a, p.len - a, k};
	if (p.nsge == 3) {
		sge[0].length = a;
		sge[1] = (struct ibv_sge){(uintptr_t)buf + a, b - a, k};
		sge[2] = (struct ibv_sge){(uintptr_t)buf + b, p.len - b, k};
	}
	struct ibv_send_wr wr = {
		.wr_id = wrid(ID_OP, i), .send_flags = IBV_SEND_SIGNALED, .sg_list = sge, .num_sge = p.len ? p.nsge : 0,
		.wr.rdma = {c.peer.win + i % o.depth * c.slot + MARGIN + p.off, c.peer.win_key},
	};
	uint64_t *was = &init.model[p.counter];
	switch (p.kind) {
	case SEND_IMM:
		wr.imm_data = htobe32(tagged(T_SEND, i));
		// fall through
	case SEND:
		wr.opcode = p.kind == SEND ? IBV_WR_SEND : IBV_WR_SEND_WITH_IMM;
		break;
	case WRITE_IMM:
		wr.imm_data = htobe32(tagged(T_WRITE, i));
		// fall through
	case WRITE:
		wr.opcode = p.kind == WRITE ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_WRITE_WITH_IMM;
		break;
	case READ:
		wr.opcode = IBV_WR_RDMA_READ;
		wr.wr.rdma.remote_addr = c.peer.ro + read_at(&p, c.peer.ro_len);
		wr.wr.rdma.rkey = c.peer.ro_key;
		fence(buf, p.len);
		break;
	case FADD:
		wr.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
		wr.wr.atomic.remote_addr = c.peer.atm + 8 * p.counter;
		wr.wr.atomic.rkey = c.peer.atm_key;
		wr.wr.atomic.compare_add = p.value;
		init.old[i % o.depth] = *was;
		*was += p.value;
		break;
	case CAS:
		wr.opcode = IBV_WR_ATOMIC_CMP_AND_SWP;
		wr.wr.atomic.remote_addr = c.peer.atm + 8 * p.counter;
		wr.wr.atomic.rkey = c.peer.atm_key;
		wr.wr.atomic.compare_add = *was ^ p.miss;
		wr.wr.atomic.swap = p.value;
		init.old[i % o.depth] = *was;
		if (!p.miss)
			*was = p.value;
		break;
	}
	if (p.kind <= WRITE_IMM)
		fill(buf, p.len, p.key, 0);
	post(&c, &wr);
	sums.ops++;
	sums.sent += p.len;
}

static void done_op(struct ibv_wc *w)
{
	uint64_t i = id_n(w->wr_id);
	struct op p = plan(me(), i);
	uint8_t *buf = place(&c.src, i, &p);
	if (p.kind == READ) {
		same("READ", i, buf, p.len, draw(!me(), 0, 10), read_at(&p, c.peer.ro_len));
		fenced("READ", i, buf, p.len);
	}
	if (p.kind == FADD || p.kind == CAS) {
		uint64_t got;
		memcpy(&got, buf, 8);
		CHECK(got == init.old[i % o.depth], "atomic %" PRIu64 ": counter %u was %" PRIx64 ", not %" PRIx64, i, p.counter, got, init.old[i % o.depth]);
	}
}

static void advance(void)
{
	if (init.posted && init.ok && init.done == init.total)
		init.posted = init.ok = false, init.done = 0, init.round++;
	if (!init.posted && init.round < init.rounds) {
		for (uint64_t i = first(init.round); i < last(init.round); i++)
			post_op(i);
		control(&c, tagged(T_END, init.round));
		init.total = last(init.round) - first(init.round) + 1;
		init.posted = true;
	}
	if (init.round == init.rounds && !init.fin_sent) {
		control(&c, tagged(T_FIN, 0));
		init.fin_sent = true;
	}
}

// lay puts canaries round where the peer will write in the coming round.
static void lay(void)
{
	if (resp.round == resp.rounds)
		return;
	resp.next = first(resp.round);
	for (uint64_t i = first(resp.round); i < last(resp.round); i++) {
		struct op p = plan(!me(), i);
		if (p.kind == WRITE || p.kind == WRITE_IMM)
			fence(place(&c.win, i, &p), p.len);
	}
}

static bool arrives(enum kind k) { return k == SEND || k == SEND_IMM || k == WRITE_IMM; }

// arrived is what a receive was used for: the plan says what must come next.
static void arrived(struct ibv_wc *w)
{
	bool imm = w->wc_flags & IBV_WC_WITH_IMM;
	uint32_t v = imm ? be32toh(w->imm_data) : 0;
	uint64_t i = resp.next;
	struct op p = {0};
	for (; i < last(resp.round); i++) {
		p = plan(!me(), i);
		if (arrives(p.kind))
			break;
	}
	CHECK(i < last(resp.round), "a message too much in round %" PRIu64 ": %u bytes, immediate %x", resp.round, w->byte_len, v);
	resp.next = i + 1;
	CHECK(imm == (p.kind != SEND), "operation %" PRIu64 ": immediate data there: %d", i, imm);
	CHECK(!imm || v == tagged(p.kind == SEND_IMM ? T_SEND : T_WRITE, i), "operation %" PRIu64 ": immediate is %x", i, v);
	CHECK(w->opcode == (p.kind == WRITE_IMM ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV), "operation %" PRIu64 ": opcode %d", i, w->opcode);
	CHECK(w->byte_len == p.len, "operation %" PRIu64 ": %u bytes, not %u", i, w->byte_len, p.len);
	if (p.kind == WRITE_IMM)
		same("WRITE_IMM", i, place(&c.win, i, &p), p.len, p.key, 0);
	else
		same("SEND", i, c.recv.p + id_n(w->wr_id) * c.slot, p.len, p.key, 0);
	sums.messages++;
}

static void end_round(uint32_t n)
{
	CHECK(n == (resp.round & 0xffffff), "the end of round %u in round %" PRIu64, n, resp.round);
	for (uint64_t i = first(resp.round); i < last(resp.round); i++) {
		struct op p = plan(!me(), i);
		CHECK(i < resp.next || !arrives(p.kind), "operation %" PRIu64 " did not arrive", i);
		if (p.kind == WRITE || p.kind == WRITE_IMM) {
			uint8_t *at = place(&c.win, i, &p);
			same("WRITE", i, at, p.len, p.key, 0);
			fenced("WRITE", i, at, p.len);
		}
		uint64_t *m = &resp.model[p.counter];
		if (p.kind == FADD)
			*m += p.value;
		if (p.kind == CAS && !p.miss)
			*m = p.value;
		if (p.kind != READ)
			sums.received += p.len;
	}
	CHECK(!memcmp(resp.model, c.atm.p, sizeof resp.model), "a counter is wrong after round %" PRIu64, resp.round);
	resp.round++;
	lay();
}

static void on_recv(struct ibv_wc *w)
{
	uint32_t v = w->wc_flags & IBV_WC_WITH_IMM ? be32toh(w->imm_data) : 0;
	unsigned tag = v >> 24;
	if (tag >= T_OK && w->opcode == IBV_WC_RECV) {
		CHECK(w->byte_len == 0, "a control message %x of %u bytes", v, w->byte_len);
		post_recv(&c, id_n(w->wr_id));
		switch (tag) {
		case T_END:
			end_round(v & 0xffffff);
			control(&c, tagged(T_OK, resp.round - 1));
			return;
		case T_OK:
			CHECK((v & 0xffffff) == (init.round & 0xffffff) && !init.ok, "an answer to round %u", v & 0xffffff);
			init.ok = true;
			return;
		case T_FIN:
			CHECK(resp.round == resp.rounds, "the peer ends after round %" PRIu64 " of %" PRIu64, resp.round, resp.rounds);
			resp.fin = true;
			return;
		}
		die("control message %x", v);
	}
	arrived(w);
	post_recv(&c, id_n(w->wr_id));
}

void test_mix(void)
{
	struct shape s = {.nrecv = o.depth + 4, .first_recv = o.depth + 4, .nslots = o.depth, .sq = o.depth + 16, .rnr_retry = 7};
	CHECK(o.depth <= 64, "-depth goes to 64");
	conn_open(&c, &s);
	uint64_t rounds = (o.n + o.depth - 1) / o.depth;
	init.rounds = acts(me()) ? rounds : 0;
	resp.rounds = acts(!me()) ? rounds : 0;
	lay();
	hello(&c);
	advance();
	while (!resp.fin || !(init.fin_done || (gone() && init.fin_sent))) {
		struct ibv_wc *w = next_wc(&c);
		CHECK(w->status == IBV_WC_SUCCESS, "round %" PRIu64 "/%" PRIu64 ": completion of %" PRIx64 ": %s", init.round, resp.round, w->wr_id, ibv_wc_status_str(w->status));
		switch (id_kind(w->wr_id)) {
		case ID_RECV:
			on_recv(w);
			break;
		case ID_OP:
			done_op(w);
			init.done++;
			break;
		case ID_CTL:
			init.done += id_n(w->wr_id) >> 24 == T_END;
			init.fin_done |= id_n(w->wr_id) >> 24 == T_FIN;
		}
		advance();
	}
	conn_end(&c);
}
