#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "peer.h"

static void make(struct conn *c, struct region *r, size_t len, int access)
{
	r->len = len;
	r->p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(r->p != MAP_FAILED, "mmap of %zu bytes: %m", len);
	r->mr = ibv_reg_mr(c->pd, r->p, len, access);
	CHECK(r->mr, "ibv_reg_mr of %zu bytes: %m", len);
}

static void drop(struct region *r)
{
	CHECK(!ibv_dereg_mr(r->mr), "ibv_dereg_mr: %m");
	munmap(r->p, r->len);
}

// setup makes all but the queue pair on c->dev.
void setup(struct conn *c, const struct shape *s)
{
	c->pd = ibv_alloc_pd(c->dev);
	CHECK(c->pd, "ibv_alloc_pd: %m");
	c->ch = ibv_create_comp_channel(c->dev);
	CHECK(c->ch, "ibv_create_comp_channel: %m");
	c->cq = ibv_create_cq(c->dev, s->sq + s->nrecv, NULL, c->ch, 0);
	CHECK(c->cq, "ibv_create_cq: %m");
	c->slot = (o.max + 63) / 64 * 64 + 2 * MARGIN;
	c->nrecv = s->nrecv;
	make(c, &c->recv, s->nrecv * c->slot, IBV_ACCESS_LOCAL_WRITE);
	make(c, &c->src, s->nslots * c->slot, IBV_ACCESS_LOCAL_WRITE);
	make(c, &c->win, s->nslots * c->slot, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_MW_BIND);
	make(c, &c->ro, o.max + 4096, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
	// Behind the counters lies the hello message, until the peer has it.
	make(c, &c->atm, COUNTERS * 8 + HELLO, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_ATOMIC);
	fill(c->ro.p, c->ro.len, draw(me(), 0, 10), 0);
}

struct ibv_qp_init_attr qp_init(struct conn *c, const struct shape *s)
{
	return (struct ibv_qp_init_attr){
		.send_cq = c->cq,
		.recv_cq = c->cq,
		.qp_type = IBV_QPT_RC,
		.cap = {.max_send_wr = s->sq, .max_recv_wr = s->nrecv, .max_send_sge = 3, .max_recv_sge = 1, .max_inline_data = 64},
	};
}

void post_recv(struct conn *c, unsigned slot)
{
	struct ibv_sge sge = {(uintptr_t)(c->recv.p + slot * c->slot), c->slot, c->recv.mr->lkey};
	struct ibv_recv_wr wr = {.wr_id = wrid(ID_RECV, slot), .sg_list = &sge, .num_sge = 1}, *bad;
	int e = ibv_post_recv(c->qp, &wr, &bad);
	CHECK(!e, "ibv_post_recv: %s", strerror(e));
}

void teardown(struct conn *c)
{
	ibv_ack_cq_events(c->cq, c->events);
	if (c->id)
		rdma_destroy_qp(c->id);
	else
		CHECK(!ibv_destroy_qp(c->qp), "ibv_destroy_qp: %m");
	CHECK(!ibv_destroy_cq(c->cq), "ibv_destroy_cq: %m");
	CHECK(!ibv_destroy_comp_channel(c->ch), "ibv_destroy_comp_channel: %m");
	drop(&c->recv), drop(&c->win), drop(&c->src), drop(&c->ro), drop(&c->atm);
	CHECK(!ibv_dealloc_pd(c->pd), "ibv_dealloc_pd: %m");
}

// next_wc waits for a completion, of success or not. main's alarm is its limit.
struct ibv_wc *next_wc(struct conn *c)
{
	while (c->iwc == c->nwc) {
		c->iwc = 0;
		c->nwc = ibv_poll_cq(c->cq, 16, c->wc);
		if (c->nwc)
			continue;
		CHECK(!ibv_req_notify_cq(c->cq, 0), "ibv_req_notify_cq: %m");
		c->nwc = ibv_poll_cq(c->cq, 16, c->wc);
		if (c->nwc)
			continue;
		struct ibv_cq *cq;
		void *arg;
		CHECK(!ibv_get_cq_event(c->ch, &cq, &arg), "ibv_get_cq_event: %m");
		c->events++;
	}
	CHECK(c->nwc > 0, "ibv_poll_cq: %d", c->nwc);
	return &c->wc[c->iwc++];
}

void post(struct conn *c, struct ibv_send_wr *wr)
{
	struct ibv_send_wr *bad;
	int e = ibv_post_send(c->qp, wr, &bad);
	CHECK(!e, "ibv_post_send of opcode %d: %s", wr->opcode, strerror(e));
}

// control sends an immediate and nothing else.
void control(struct conn *c, uint32_t imm)
{
	struct ibv_send_wr wr = {
		.wr_id = wrid(ID_CTL, imm), .opcode = IBV_WR_SEND_WITH_IMM, .send_flags = IBV_SEND_SIGNALED, .imm_data = htobe32(imm),
	};
	post(c, &wr);
}

static void send_hello(struct conn *c)
{
	uint64_t m[HELLO / 8] = {
		0x7a72646d61706565, (uintptr_t)c->win.p, c->win.len, c->win.mr->rkey,
		(uintptr_t)c->ro.p, c->ro.len, c->ro.mr->rkey, (uintptr_t)c->atm.p, c->atm.mr->rkey,
	};
	for (int i = 0; i < HELLO / 8; i++)
		m[i] = htobe64(m[i]);
	uint8_t *at = c->atm.p + COUNTERS * 8;
	memcpy(at, m, HELLO);
	struct ibv_sge sge = {(uintptr_t)at, HELLO, c->atm.mr->lkey};
	struct ibv_send_wr wr = {.wr_id = wrid(ID_CTL, 0), .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED, .sg_list = &sge, .num_sge = 1};
	post(c, &wr);
}

// hello exchanges where memory is. The client speaks first: a server that sends
// before it has heard of the client may be too early for the client's queue pair.
// The completion of what was sent here comes later, as control message 0.
void hello(struct conn *c)
{
	if (!o.server)
		send_hello(c);
	struct ibv_wc *w = next_wc(c);
	while (w->status == IBV_WC_SUCCESS && id_kind(w->wr_id) != ID_RECV)
		w = next_wc(c);
	CHECK(w->status == IBV_WC_SUCCESS, "hello: completion %s", ibv_wc_status_str(w->status));
	CHECK(w->byte_len == HELLO, "hello: %u bytes", w->byte_len);
	uint64_t m[HELLO / 8];
	memcpy(m, c->recv.p + id_n(w->wr_id) * c->slot, HELLO);
	for (int i = 0; i < HELLO / 8; i++)
		m[i] = be64toh(m[i]);
	CHECK(m[0] == 0x7a72646d61706565, "hello: begins with %016llx", (unsigned long long)m[0]);
	c->peer = (struct remote){m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[8]};
	if (strcmp(o.test, "rnr")) // which posts its receives late
		post_recv(c, id_n(w->wr_id));
	if (o.server)
		send_hello(c);
	struct ibv_qp_attr a;
	struct ibv_qp_init_attr in;
	CHECK(!ibv_query_qp(c->qp, &a, IBV_QP_PATH_MTU, &in), "ibv_query_qp: %m");
	sums.mtu = 128u << a.path_mtu;
}

void conn_open(struct conn *c, const struct shape *s)
{
	memset(c, 0, sizeof *c);
	(o.oob ? oob_open : cm_open)(c, s);
}

void conn_settle(struct conn *c)
{
	if (!c->settled)
		(o.oob ? oob_settle : cm_settle)(c);
	c->settled = true;
}

void conn_end(struct conn *c)
{
	conn_settle(c);
	teardown(c);
	if (c->id)
		CHECK(!rdma_destroy_id(c->id), "rdma_destroy_id: %m");
	else
		CHECK(!ibv_close_device(c->dev), "ibv_close_device: %m");
}
