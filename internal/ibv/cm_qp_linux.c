// The helpers of rdma_verbs.h check ranges with assert; Go checked them before.
#define NDEBUG
#include <fcntl.h>

#include "zr_cm.h"

static inline void *ptr(uint64_t v) { return (void *)(uintptr_t)v; }

// rdma_get_send_comp and its twin wait on these channels: they must not block.
static void nonblock(struct ibv_comp_channel *ch) {
	if (ch) fcntl(ch->fd, F_SETFL, fcntl(ch->fd, F_GETFL) | O_NONBLOCK);
}

int zr_cm_create_qp(struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_cq *scq, struct ibv_cq *rcq,
		    struct ibv_srq *srq, struct zr_qp_init *in) {
	int rc;
	errno = 0;
	if (!in->ex) {
		struct ibv_qp_init_attr a = {
			.qp_context = ptr(in->cookie),
			.send_cq = scq, .recv_cq = rcq, .srq = srq,
			.cap = in->cap, .qp_type = in->type, .sq_sig_all = (int)in->sq_sig_all,
		};
		rc = zr_ret(rdma_create_qp(id, pd, &a));
		in->cap = a.cap;
	} else {
		struct ibv_qp_init_attr_ex a = {
			.qp_context = ptr(in->cookie),
			.send_cq = scq, .recv_cq = rcq, .srq = srq,
			.cap = in->cap, .qp_type = in->type, .sq_sig_all = (int)in->sq_sig_all,
			.pd = pd, .create_flags = in->create_flags, .send_ops_flags = in->send_ops,
		};
		if (pd) a.comp_mask |= IBV_QP_INIT_ATTR_PD;
		if (in->create_flags) a.comp_mask |= IBV_QP_INIT_ATTR_CREATE_FLAGS;
		if (in->send_ops) a.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
		rc = zr_ret(rdma_create_qp_ex(id, &a));
		in->cap = a.cap;
	}
	if (rc) return rc;
	nonblock(id->send_cq_channel);
	nonblock(id->recv_cq_channel);
	return 0;
}

// rdma_destroy_qp hides what ibv_destroy_qp answers, and with it whether the device
// is done with the memory. Without completion queues that librdmacm made, it does no
// more than what is done here.
int zr_cm_destroy_qp(struct rdma_cm_id *id) {
	int rc;
	if (!id->qp) return 0;
	if (id->send_cq || id->recv_cq) {
		rdma_destroy_qp(id);
		return 0;
	}
	errno = 0;
	rc = zr_ret(ibv_destroy_qp(id->qp));
	if (!rc) id->qp = NULL;
	return rc;
}

int zr_cm_init_qp_attr(struct rdma_cm_id *id, struct ibv_qp_attr *a, int *mask) {
	errno = 0;
	return zr_ret(rdma_init_qp_attr(id, a, mask));
}

int zr_cm_create_srq(struct rdma_cm_id *id, struct ibv_pd *pd, uint64_t cookie, struct ibv_srq_attr *at, int ex,
		     uint32_t type) {
	int rc;
	errno = 0;
	if (!ex) {
		struct ibv_srq_init_attr a = {.srq_context = ptr(cookie), .attr = *at};
		rc = zr_ret(rdma_create_srq(id, pd, &a));
		*at = a.attr;
		return rc;
	}
	struct ibv_srq_init_attr_ex a = {
		.srq_context = ptr(cookie), .attr = *at, .srq_type = type, .pd = pd,
		.comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD,
	};
	rc = zr_ret(rdma_create_srq_ex(id, &a));
	*at = a.attr;
	return rc;
}

void zr_cm_destroy_srq(struct rdma_cm_id *id) {
	if (id->srq) rdma_destroy_srq(id);
}

int zr_cm_reg(struct rdma_cm_id *id, int kind, uint64_t addr, size_t len, struct ibv_mr **out) {
	if (!id->pd) return EINVAL;
	errno = 0;
	switch (kind) {
	case 0: *out = rdma_reg_msgs(id, ptr(addr), len); break;
	case 1: *out = rdma_reg_read(id, ptr(addr), len); break;
	default: *out = rdma_reg_write(id, ptr(addr), len);
	}
	return *out ? 0 : zr_errno();
}

int zr_cm_dereg(struct ibv_mr *mr) {
	errno = 0;
	return zr_ret(rdma_dereg_mr(mr));
}

enum { OP_RECV, OP_SEND, OP_READ, OP_WRITE, OP_UD_SEND };

int zr_cm_post(struct rdma_cm_id *id, struct zr_cm_post *p) {
	struct ibv_mr *mr = ptr(p->mr);
	void *ctx = ptr(p->id), *addr = ptr(p->addr);
	if (!(id->qp || (p->op == OP_RECV && id->srq))) return EINVAL;
	if (!mr && (p->op == OP_RECV || p->op == OP_READ)) return EINVAL;
	errno = 0;
	switch (p->op) {
	case OP_RECV: return zr_ret(rdma_post_recv(id, ctx, addr, p->length, mr));
	case OP_SEND: return zr_ret(rdma_post_send(id, ctx, addr, p->length, mr, (int)p->flags));
	case OP_READ:
		return zr_ret(rdma_post_read(id, ctx, addr, p->length, mr, (int)p->flags, p->remote_addr, p->rkey));
	case OP_WRITE:
		return zr_ret(rdma_post_write(id, ctx, addr, p->length, mr, (int)p->flags, p->remote_addr, p->rkey));
	case OP_UD_SEND:
		if (!p->ah) return EINVAL;
		return zr_ret(rdma_post_ud_send(id, ctx, addr, p->length, mr, (int)p->flags, ptr(p->ah), p->remote_qpn));
	}
	return EINVAL;
}

int zr_cm_postv(struct rdma_cm_id *id, struct zr_cm_post *p, struct ibv_sge *sge, int n) {
	void *ctx = ptr(p->id);
	if (!(id->qp || (p->op == OP_RECV && id->srq))) return EINVAL;
	errno = 0;
	switch (p->op) {
	case OP_RECV: return zr_ret(rdma_post_recvv(id, ctx, sge, n));
	case OP_SEND: return zr_ret(rdma_post_sendv(id, ctx, sge, n, (int)p->flags));
	case OP_READ: return zr_ret(rdma_post_readv(id, ctx, sge, n, (int)p->flags, p->remote_addr, p->rkey));
	case OP_WRITE: return zr_ret(rdma_post_writev(id, ctx, sge, n, (int)p->flags, p->remote_addr, p->rkey));
	}
	return EINVAL;
}

// EAGAIN when there is no completion: the helper has armed the queue then, and
// its channel becomes readable with the next one.
int zr_cm_get_comp(struct rdma_cm_id *id, int recv, struct ibv_wc *wc) {
	if (recv ? !id->recv_cq || !id->recv_cq_channel : !id->send_cq || !id->send_cq_channel) return EINVAL;
	errno = 0;
	int n = recv ? rdma_get_recv_comp(id, wc) : rdma_get_send_comp(id, wc);
	if (n > 0) return 0;
	return errno < 0 ? EIO : (errno ? errno : EAGAIN);
}
