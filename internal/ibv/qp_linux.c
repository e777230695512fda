#include "zr.h"

int zr_create_qp(struct ibv_context *c, struct ibv_pd *pd, struct ibv_cq *scq, struct ibv_cq *rcq, struct ibv_srq *srq,
		 struct ibv_xrcd *xrcd, struct ibv_rwq_ind_table *tbl, struct zr_qp_init *in, struct ibv_qp **out) {
	errno = 0;
	if (!in->ex) {
		struct ibv_qp_init_attr a = {
			.qp_context = (void *)(uintptr_t)in->cookie,
			.send_cq = scq, .recv_cq = rcq, .srq = srq,
			.cap = in->cap, .qp_type = in->type, .sq_sig_all = (int)in->sq_sig_all,
		};
		*out = ibv_create_qp(pd, &a);
		if (*out) in->cap = a.cap;
		return *out ? 0 : zr_errno();
	}
	struct ibv_qp_init_attr_ex a = {
		.qp_context = (void *)(uintptr_t)in->cookie,
		.send_cq = scq, .recv_cq = rcq, .srq = srq,
		.cap = in->cap, .qp_type = in->type, .sq_sig_all = (int)in->sq_sig_all,
		.pd = pd, .xrcd = xrcd, .create_flags = in->create_flags,
		.max_tso_header = in->max_tso_header, .rwq_ind_tbl = tbl,
		.rx_hash_conf = {.rx_hash_function = in->hash_func, .rx_hash_key_len = in->hash_key_len,
				 .rx_hash_key = in->hash_key, .rx_hash_fields_mask = in->hash_fields},
		.source_qpn = in->source_qpn, .send_ops_flags = in->send_ops,
	};
	if (pd) a.comp_mask |= IBV_QP_INIT_ATTR_PD;
	if (xrcd) a.comp_mask |= IBV_QP_INIT_ATTR_XRCD;
	if (in->create_flags) a.comp_mask |= IBV_QP_INIT_ATTR_CREATE_FLAGS;
	if (in->max_tso_header) a.comp_mask |= IBV_QP_INIT_ATTR_MAX_TSO_HEADER;
	if (tbl) a.comp_mask |= IBV_QP_INIT_ATTR_IND_TABLE;
	if (in->hash_func) a.comp_mask |= IBV_QP_INIT_ATTR_RX_HASH;
	if (in->send_ops) a.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
	*out = ibv_create_qp_ex(c, &a);
	if (*out) in->cap = a.cap;
	return *out ? 0 : zr_errno();
}

int zr_query_qp(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask, struct zr_qp_init *in) {
	struct ibv_qp_init_attr i = {0};
	memset(a, 0, sizeof *a);
	int rc = zr_ret(ibv_query_qp(qp, a, mask, &i));
	if (rc) return rc;
	in->cap = i.cap;
	in->type = i.qp_type;
	in->sq_sig_all = (uint32_t)i.sq_sig_all;
	return 0;
}

int zr_modify_rate_limit(struct ibv_qp *qp, uint32_t rate, uint32_t burst, uint16_t pkt) {
	struct ibv_qp_rate_limit_attr a = {.rate_limit = rate, .max_burst_sz = burst, .typical_pkt_sz = pkt};
	return zr_ret(ibv_modify_qp_rate_limit(qp, &a));
}

int zr_create_srq(struct ibv_pd *pd, uint64_t cookie, struct ibv_srq_attr *at, struct ibv_srq **out) {
	struct ibv_srq_init_attr a = {.srq_context = (void *)(uintptr_t)cookie, .attr = *at};
	errno = 0;
	*out = ibv_create_srq(pd, &a);
	if (*out) *at = a.attr;
	return *out ? 0 : zr_errno();
}

int zr_create_srq_ex(struct ibv_context *c, struct ibv_pd *pd, struct ibv_xrcd *x, struct ibv_cq *cq, uint64_t cookie,
		     struct ibv_srq_attr *at, uint32_t type, uint32_t tags, uint32_t ops, struct ibv_srq **out) {
	struct ibv_srq_init_attr_ex a = {
		.srq_context = (void *)(uintptr_t)cookie, .attr = *at,
		.comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD,
		.srq_type = type, .pd = pd, .xrcd = x, .cq = cq,
		.tm_cap = {.max_num_tags = tags, .max_ops = ops},
	};
	if (x) a.comp_mask |= IBV_SRQ_INIT_ATTR_XRCD;
	if (cq) a.comp_mask |= IBV_SRQ_INIT_ATTR_CQ;
	if (type == IBV_SRQT_TM) a.comp_mask |= IBV_SRQ_INIT_ATTR_TM;
	errno = 0;
	*out = ibv_create_srq_ex(c, &a);
	if (*out) *at = a.attr;
	return *out ? 0 : zr_errno();
}
