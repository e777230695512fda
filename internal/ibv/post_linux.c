#include "zr.h"

enum { CHUNK = 32 };

static inline void *ptr(uint64_t v) { return (void *)(uintptr_t)v; }

static void to_send_wr(struct ibv_send_wr *o, const struct zr_wr *w, struct ibv_sge *sge) {
	// Only what a provider may read for any opcode is cleared: a memset of all
	// costs as much as the rest.
	o->imm_data = 0;
	o->wr.atomic.remote_addr = o->wr.atomic.compare_add = o->wr.atomic.swap = 0;
	o->wr.atomic.rkey = 0;
	o->qp_type.xrc.remote_srqn = w->srqn;
	o->wr_id = w->id;
	o->sg_list = sge + w->sge_off;
	o->num_sge = (int)w->num_sge;
	o->opcode = w->opcode;
	o->send_flags = w->flags;
	switch (w->opcode) {
	case IBV_WR_RDMA_WRITE_WITH_IMM:
	case IBV_WR_SEND_WITH_IMM:
		o->imm_data = htobe32(w->imm);
		break;
	case IBV_WR_LOCAL_INV:
	case IBV_WR_SEND_WITH_INV:
		o->invalidate_rkey = w->imm;
		break;
	}
	switch (w->opcode) {
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM:
	case IBV_WR_RDMA_READ:
		o->wr.rdma.remote_addr = w->remote_addr;
		o->wr.rdma.rkey = w->rkey;
		break;
	case IBV_WR_ATOMIC_CMP_AND_SWP:
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		o->wr.atomic.remote_addr = w->remote_addr;
		o->wr.atomic.compare_add = w->compare_add;
		o->wr.atomic.swap = w->swap;
		o->wr.atomic.rkey = w->rkey;
		break;
	case IBV_WR_BIND_MW:
		o->bind_mw.mw = ptr(w->mw);
		o->bind_mw.rkey = w->rkey;
		o->bind_mw.bind_info.mr = ptr(w->mr);
		o->bind_mw.bind_info.addr = w->bind_addr;
		o->bind_mw.bind_info.length = w->bind_length;
		o->bind_mw.bind_info.mw_access_flags = w->bind_access;
		break;
	case IBV_WR_TSO:
		o->tso.hdr = ptr(w->hdr);
		o->tso.hdr_sz = w->hdr_sz;
		o->tso.mss = w->mss;
		break;
	}
	if (w->ah) {
		o->wr.ud.ah = ptr(w->ah);
		o->wr.ud.remote_qpn = w->remote_qpn;
		o->wr.ud.remote_qkey = w->remote_qkey;
	}
}

// struct ibv_send_wr has no fields for these: only the builder posts them.
static int builder_only(uint32_t op) { return op == 14 /* flush, absent from old headers */ || op == IBV_WR_ATOMIC_WRITE; }

static int post_send(struct ibv_qp *qp, struct zr_wr *wr, int n, struct ibv_sge *sge, int *done) {
	struct ibv_send_wr list[CHUNK], *bad;
	*done = 0;
	while (*done < n) {
		int k = n - *done < CHUNK ? n - *done : CHUNK;
		for (int i = 0; i < k; i++) {
			if (builder_only(wr[*done + i].opcode)) {
				if (i == 0) return EOPNOTSUPP;
				k = i;
				list[i - 1].next = NULL;
				break;
			}
			to_send_wr(&list[i], &wr[*done + i], sge);
			list[i].next = i + 1 < k ? &list[i + 1] : NULL;
		}
		bad = NULL;
		int rc = ibv_post_send(qp, list, &bad);
		if (rc) {
			if (bad >= list && bad < list + k) *done += (int)(bad - list);
			return rc > 0 ? rc : zr_errno();
		}
		*done += k;
	}
	return 0;
}

// post_recv serves queue pairs and shared receive queues.
static int post_recv(struct ibv_qp *qp, struct ibv_srq *srq, struct zr_recv_wr *wr, int n, struct ibv_sge *sge, int *done) {
	struct ibv_recv_wr list[CHUNK], *bad;
	*done = 0;
	while (*done < n) {
		int k = n - *done < CHUNK ? n - *done : CHUNK;
		for (int i = 0; i < k; i++) {
			struct zr_recv_wr *w = &wr[*done + i];
			list[i].wr_id = w->id;
			list[i].sg_list = sge + w->sge_off;
			list[i].num_sge = (int)w->num_sge;
			list[i].next = i + 1 < k ? &list[i + 1] : NULL;
		}
		bad = NULL;
		int rc = qp ? ibv_post_recv(qp, list, &bad) : ibv_post_srq_recv(srq, list, &bad);
		if (rc) {
			if (bad >= list && bad < list + k) *done += (int)(bad - list);
			return rc > 0 ? rc : zr_errno();
		}
		*done += k;
	}
	return 0;
}

int zr_post_send(zr_obj qp, struct zr_wr *wr, int n, struct ibv_sge *sge, int *done) {
	return post_send(zr_ptr(qp), wr, n, sge, done);
}

int zr_post_recv(zr_obj qp, struct zr_recv_wr *wr, int n, struct ibv_sge *sge, int *done) {
	return post_recv(zr_ptr(qp), NULL, wr, n, sge, done);
}

// Returns 0, an errno of a post, or minus what the poll returned.
int zr_exchange(zr_obj qp, zr_obj scq, zr_obj rcq, struct zr_recv_wr *recv, struct ibv_sge *recv_sge, struct zr_wr *send,
		struct ibv_sge *send_sge, struct ibv_wc *wc, struct zr_exchange *x) {
	x->recvs = x->sends = x->wcs = 0;
	x->tick = zr_tick();
	x->failed = 1;
	int rc = post_recv(zr_ptr(qp), NULL, recv, x->n_recv, recv_sge, &x->recvs);
	if (rc) return rc;
	x->failed = 2;
	rc = post_send(zr_ptr(qp), send, x->n_send, send_sge, &x->sends);
	if (rc) return rc;
	x->failed = 0;
	if (!x->n_wc) return 0;
	int k = zr_spin(zr_ptr(scq), zr_ptr(rcq), x->n_wc, wc, x->want, x->spin_ns);
	if (k >= 0) {
		x->wcs = k;
		return 0;
	}
	x->failed = 3;
	return k == -1 ? EIO : -k;
}

int zr_post_srq_recv(struct ibv_srq *srq, struct zr_recv_wr *wr, int n, struct ibv_sge *sge, int *done) {
	return post_recv(NULL, srq, wr, n, sge, done);
}
