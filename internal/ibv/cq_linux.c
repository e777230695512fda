#include "zr.h"

int zr_create_cq(struct ibv_context *c, int cqe, uint64_t cookie, struct ibv_comp_channel *ch, int vec, struct ibv_cq **out) {
	errno = 0;
	*out = ibv_create_cq(c, cqe, (void *)(uintptr_t)cookie, ch, vec);
	return *out ? 0 : zr_errno();
}

int zr_create_cq_ex(struct ibv_context *c, uint32_t cqe, uint64_t cookie, struct ibv_comp_channel *ch, uint32_t vec,
		    uint64_t wc_flags, uint32_t comp_mask, uint32_t flags, struct ibv_pd *pd, struct ibv_cq **out) {
	struct ibv_cq_init_attr_ex a = {
		.cqe = cqe,
		.cq_context = (void *)(uintptr_t)cookie,
		.channel = ch,
		.comp_vector = vec,
		.wc_flags = wc_flags,
		.comp_mask = comp_mask,
		.flags = flags,
		.parent_domain = pd,
	};
	errno = 0;
	struct ibv_cq_ex *cq = ibv_create_cq_ex(c, &a);
	if (!cq) return zr_errno();
	*out = ibv_cq_ex_to_cq(cq);
	return 0;
}

// The event is acknowledged here, so that a destroy never waits for one.
int zr_get_cq_event(struct ibv_comp_channel *ch, uint64_t *cookie) {
	struct ibv_cq *cq;
	void *ctx;
	errno = 0;
	if (ibv_get_cq_event(ch, &cq, &ctx)) return zr_errno();
	*cookie = (uintptr_t)ctx;
	ibv_ack_cq_events(cq, 1);
	return 0;
}

int zr_poll_cq(zr_obj cq, int n, struct ibv_wc *wc) { return ibv_poll_cq(zr_ptr(cq), n, wc); }

int zr_poll_spin(zr_obj cq, int n, struct ibv_wc *wc, int64_t ns) { return zr_spin(zr_ptr(cq), NULL, n, wc, 1, ns); }

static void read_wc(struct ibv_cq_ex *cq, uint64_t have, struct zr_wc_ex *o) {
	memset(o, 0, sizeof *o);
	o->wc.wr_id = cq->wr_id;
	o->wc.status = cq->status;
	// The specification leaves all but these two undefined on an error.
	o->wc.vendor_err = ibv_wc_read_vendor_err(cq);
	if (have & IBV_WC_EX_WITH_QP_NUM) o->wc.qp_num = ibv_wc_read_qp_num(cq);
	o->wc.opcode = ibv_wc_read_opcode(cq);
	if (cq->status != IBV_WC_SUCCESS) return;
	o->wc.wc_flags = ibv_wc_read_wc_flags(cq);
	if (have & IBV_WC_EX_WITH_BYTE_LEN) o->wc.byte_len = ibv_wc_read_byte_len(cq);
	if (have & IBV_WC_EX_WITH_IMM) {
		if (o->wc.wc_flags & IBV_WC_WITH_INV)
			o->wc.invalidated_rkey = ibv_wc_read_invalidated_rkey(cq);
		else
			o->wc.imm_data = ibv_wc_read_imm_data(cq);
	}
	if (have & IBV_WC_EX_WITH_SRC_QP) o->wc.src_qp = ibv_wc_read_src_qp(cq);
	if (have & IBV_WC_EX_WITH_SLID) o->wc.slid = (uint16_t)ibv_wc_read_slid(cq);
	if (have & IBV_WC_EX_WITH_SL) o->wc.sl = ibv_wc_read_sl(cq);
	if (have & IBV_WC_EX_WITH_DLID_PATH_BITS) o->wc.dlid_path_bits = ibv_wc_read_dlid_path_bits(cq);
	if (have & IBV_WC_EX_WITH_COMPLETION_TIMESTAMP) o->ts = ibv_wc_read_completion_ts(cq);
	if (have & IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK)
		o->wallclock_ns = ibv_wc_read_completion_wallclock_ns(cq);
	if (have & IBV_WC_EX_WITH_CVLAN) o->cvlan = ibv_wc_read_cvlan(cq);
	if (have & IBV_WC_EX_WITH_FLOW_TAG) o->flow_tag = ibv_wc_read_flow_tag(cq);
	if (have & IBV_WC_EX_WITH_TM_INFO) {
		struct ibv_wc_tm_info t;
		ibv_wc_read_tm_info(cq, &t);
		o->tm_tag = t.tag;
		o->tm_priv = t.priv;
	}
}

// Returns the number read, or minus an errno. one_by_one opens and closes a batch
// for every completion: the rxe provider of rdma-core up to 54 lets next_poll
// run past the producer once it has said "empty", and up to 58 unlocks twice.
int zr_poll_cq_ex(struct ibv_cq *base, int n, struct zr_wc_ex *wc, uint64_t wc_flags, int one_by_one) {
	struct ibv_cq_ex *cq = (struct ibv_cq_ex *)base;
	struct ibv_poll_cq_attr a = {0};
	int k = 0;
	while (k < n) {
		int rc = ibv_start_poll(cq, &a);
		if (rc == ENOENT) return k;
		if (rc) return k ? k : -rc;
		read_wc(cq, wc_flags, &wc[k++]);
		if (!one_by_one) {
			while (k < n && !(rc = ibv_next_poll(cq))) read_wc(cq, wc_flags, &wc[k++]);
			ibv_end_poll(cq);
			return k;
		}
		ibv_end_poll(cq);
	}
	return k;
}

int zr_modify_cq(struct ibv_cq *cq, uint16_t count, uint16_t period) {
	struct ibv_modify_cq_attr a = {
		.attr_mask = IBV_CQ_ATTR_MODERATE,
		.moderate = {.cq_count = count, .cq_period = period},
	};
	return zr_ret(ibv_modify_cq(cq, &a));
}
