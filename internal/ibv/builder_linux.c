#include "zr_rare.h"

static inline void *ptr(uint64_t v) { return (void *)(uintptr_t)v; }

// One request between wr_start and wr_complete. The provider's queue lock is
// held: no return to Go from here, and an error is returned, not acted upon.
static int build(struct ibv_qp_ex *q, const struct zr_wr *w, struct ibv_sge *sge, int sge_bug) {
	q->wr_id = w->id;
	// With SEND_INLINE, which set_inline_data should imply: on rxe it does not.
	q->wr_flags = w->flags;
	struct ibv_mw_bind_info bi;
	uint64_t v;
	switch ((int)w->opcode) {
#define NEED(op) \
	if (!q->op) return EOPNOTSUPP
	case IBV_WR_SEND:
		NEED(wr_send);
		ibv_wr_send(q);
		break;
	case IBV_WR_SEND_WITH_IMM:
		NEED(wr_send_imm);
		ibv_wr_send_imm(q, htobe32(w->imm));
		break;
	case IBV_WR_SEND_WITH_INV:
		NEED(wr_send_inv);
		ibv_wr_send_inv(q, w->imm);
		break;
	case IBV_WR_TSO:
		NEED(wr_send_tso);
		ibv_wr_send_tso(q, ptr(w->hdr), w->hdr_sz, w->mss);
		break;
	case IBV_WR_RDMA_WRITE:
		NEED(wr_rdma_write);
		ibv_wr_rdma_write(q, w->rkey, w->remote_addr);
		break;
	case IBV_WR_RDMA_WRITE_WITH_IMM:
		NEED(wr_rdma_write_imm);
		ibv_wr_rdma_write_imm(q, w->rkey, w->remote_addr, htobe32(w->imm));
		break;
	case IBV_WR_RDMA_READ:
		NEED(wr_rdma_read);
		ibv_wr_rdma_read(q, w->rkey, w->remote_addr);
		break;
	case IBV_WR_ATOMIC_CMP_AND_SWP:
		NEED(wr_atomic_cmp_swp);
		ibv_wr_atomic_cmp_swp(q, w->rkey, w->remote_addr, w->compare_add, w->swap);
		break;
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		NEED(wr_atomic_fetch_add);
		ibv_wr_atomic_fetch_add(q, w->rkey, w->remote_addr, w->compare_add);
		break;
	case IBV_WR_ATOMIC_WRITE:
		NEED(wr_atomic_write);
		v = w->swap;
		ibv_wr_atomic_write(q, w->rkey, w->remote_addr, &v);
		return 0;  // carries its eight bytes itself
	case ZR_WR_FLUSH:  // Go lets it through only where the queue pair has the operation
		if (!zr_flush_op(q)) return EOPNOTSUPP;
		ibv_wr_flush(q, w->rkey, w->remote_addr, (size_t)w->compare_add, (uint8_t)w->flush_type,
			     (uint8_t)w->flush_level);
		return 0;
	case IBV_WR_BIND_MW:
		NEED(wr_bind_mw);
		bi.mr = ptr(w->mr);
		bi.addr = w->bind_addr;
		bi.length = w->bind_length;
		bi.mw_access_flags = w->bind_access;
		ibv_wr_bind_mw(q, ptr(w->mw), w->rkey, &bi);
		return 0;
	case IBV_WR_LOCAL_INV:
		NEED(wr_local_inv);
		ibv_wr_local_inv(q, w->imm);
		return 0;
	default:
		return EOPNOTSUPP;
	}
	if (w->ah) {
		NEED(wr_set_ud_addr);
		ibv_wr_set_ud_addr(q, ptr(w->ah), w->remote_qpn, w->remote_qkey);
	}
	if (w->srqn) {
		NEED(wr_set_xrc_srqn);
		ibv_wr_set_xrc_srqn(q, w->srqn);
	}
	struct ibv_sge *s = sge + w->sge_off;
	if (w->flags & IBV_SEND_INLINE) {
		if (w->num_sge == 1) {
			ibv_wr_set_inline_data(q, ptr(s->addr), s->length);
			return 0;
		}
		struct ibv_data_buf bufs[64];
		if (w->num_sge > 64) return EINVAL;
		for (uint32_t i = 0; i < w->num_sge; i++) {
			bufs[i].addr = ptr(s[i].addr);
			bufs[i].length = s[i].length;
		}
		if (!sge_bug) {
			ibv_wr_set_inline_data_list(q, w->num_sge, bufs);
			return 0;
		}
		// rxe up to rdma-core 63 sends nothing for an inline list and does not
		// check its size: gather into one buffer instead.
		char flat[4096];
		size_t n = 0;
		for (uint32_t i = 0; i < w->num_sge; i++) {
			if (n + bufs[i].length > sizeof flat) return EINVAL;
			memcpy(flat + n, bufs[i].addr, bufs[i].length);
			n += bufs[i].length;
		}
		ibv_wr_set_inline_data(q, flat, n);
		return 0;
	}
	if (w->num_sge == 1)
		ibv_wr_set_sge(q, s->lkey, s->addr, s->length);
	else
		ibv_wr_set_sge_list(q, w->num_sge, s);
	return 0;
}

int zr_wr_post(struct ibv_qp *qp, struct zr_wr *wr, int n, struct ibv_sge *sge, int dry, int sge_bug, int *bad) {
	*bad = 0;
	struct ibv_qp_ex *q = ibv_qp_to_qp_ex(qp);
	if (!q || !q->wr_start) return EOPNOTSUPP;
	ibv_wr_start(q);
	for (int i = 0; i < n; i++) {
		int rc = build(q, &wr[i], sge, sge_bug);
		if (rc) {
			ibv_wr_abort(q);
			*bad = i;
			return rc;
		}
	}
	if (dry) {
		ibv_wr_abort(q);
		return 0;
	}
	return zr_ret(ibv_wr_complete(q));
}
