#include <endian.h>
#include <inttypes.h>
#include <string.h>

#include "peer.h"

// Small messages, numbered, as fast as the peer's receives allow: it answers
// every CREDIT messages with how many it has taken.
enum { WINDOW = 1024, CREDIT = 256, BATCH = 64 };

static struct conn c;
static uint64_t total, sent, taken, completed; // by us: posted, credited, completed
static uint64_t expected, next;                // by the peer: how many, which is next
static bool fin_sent, fin_done, fin;

static uint32_t size(unsigned side, uint64_t i) { return 8 + draw(side, i, 11) % (o.max - 7); }

// One signaled request at the end of a batch stands for all of it. Every other
// batch goes inline where it fits.
static void send_batch(void)
{
	struct ibv_send_wr wr[BATCH];
	struct ibv_sge sge[BATCH];
	uint64_t room = WINDOW - (sent - (taken < completed ? taken : completed));
	unsigned n = BATCH;
	if (n > total - sent)
		n = total - sent;
	if (n == 0 || room < n)
		return;
	for (unsigned k = 0; k < n; k++) {
		uint64_t i = sent + k;
		uint8_t *p = c.src.p + i % WINDOW * c.slot;
		uint32_t len = size(me(), i);
		uint64_t number = htobe64(i);
		memcpy(p, &number, 8);
		fill(p + 8, len - 8, draw(me(), i, 12), 0);
		sge[k] = (struct ibv_sge){(uintptr_t)p, len, c.src.mr->lkey};
		wr[k] = (struct ibv_send_wr){
			.wr_id = wrid(ID_OP, i), .next = k + 1 < n ? &wr[k + 1] : NULL, .sg_list = &sge[k], .num_sge = 1, .opcode = IBV_WR_SEND,
			.send_flags = (k + 1 == n ? IBV_SEND_SIGNALED : 0) | (i / BATCH % 2 && len <= 64 ? IBV_SEND_INLINE : 0),
		};
		sums.sent += len;
	}
	post(&c, wr);
	sent += n;
	sums.ops += n;
}

static void on_message(struct ibv_wc *w)
{
	const uint8_t *p = c.recv.p + id_n(w->wr_id) * c.slot;
	uint64_t number;
	memcpy(&number, p, 8);
	number = be64toh(number);
	CHECK(number == next, "message %" PRIu64 " instead of %" PRIu64, number, next);
	uint32_t len = size(!me(), next);
	CHECK(w->byte_len == len, "message %" PRIu64 ": %u bytes, not %u", next, w->byte_len, len);
	CHECK(differs(p + 8, len - 8, draw(!me(), next, 12), 0) < 0, "message %" PRIu64 " is damaged", next);
	next++;
	sums.messages++;
	sums.received += len;
	post_recv(&c, id_n(w->wr_id));
	if (next % CREDIT == 0)
		control(&c, tagged(T_CREDIT, next / CREDIT));
}

static void on_control(struct ibv_wc *w)
{
	uint32_t v = be32toh(w->imm_data);
	post_recv(&c, id_n(w->wr_id));
	switch (v >> 24) {
	case T_CREDIT:
		CHECK((v & 0xffffff) == taken / CREDIT + 1, "credit %u after %" PRIu64, v & 0xffffff, taken / CREDIT);
		taken += CREDIT;
		return;
	case T_FIN:
		CHECK(next == expected, "the peer ends after %" PRIu64 " of %" PRIu64 " messages", next, expected);
		fin = true;
		return;
	}
	die("control message %x", v);
}

void test_stream(void)
{
	CHECK(o.max >= 8, "-max of a stream is at least 8");
	struct shape s = {.nrecv = WINDOW + 16, .first_recv = WINDOW + 16, .nslots = WINDOW, .sq = WINDOW + 32, .rnr_retry = 7};
	conn_open(&c, &s);
	hello(&c);
	total = acts(me()) ? o.n : 0;
	expected = acts(!me()) ? o.n : 0;
	while (!fin || !(fin_done || (gone() && fin_sent))) {
		uint64_t before;
		do {
			before = sent;
			send_batch();
		} while (sent > before);
		if (sent == total && !fin_sent) {
			control(&c, tagged(T_FIN, 0));
			fin_sent = true;
		}
		struct ibv_wc *w = next_wc(&c);
		CHECK(w->status == IBV_WC_SUCCESS, "after %" PRIu64 " sent, %" PRIu64 " received: completion of %" PRIx64 ": %s", sent, next, w->wr_id, ibv_wc_status_str(w->status));
		switch (id_kind(w->wr_id)) {
		case ID_RECV:
			if (w->wc_flags & IBV_WC_WITH_IMM)
				on_control(w);
			else
				on_message(w);
			break;
		case ID_OP:
			completed = id_n(w->wr_id) + 1;
			break;
		case ID_CTL:
			fin_done |= id_n(w->wr_id) >> 24 == T_FIN;
		}
	}
	CHECK(sent == total && next == expected, "%" PRIu64 " sent, %" PRIu64 " received", sent, next);
	conn_end(&c);
}
