#include "zr_rare.h"

enum { CHUNK = 32, MAX_TABLE_LOG = 16 };

int zr_create_wq(struct ibv_context *c, struct ibv_pd *pd, struct ibv_cq *cq, struct zr_wq_init *in, struct ibv_wq **out) {
	struct ibv_wq_init_attr a = {
		.wq_context = (void *)(uintptr_t)in->cookie,
		.wq_type = in->type,
		.max_wr = in->max_wr,
		.max_sge = in->max_sge,
		.pd = pd,
		.cq = cq,
		.create_flags = in->create_flags,
	};
	if (in->create_flags) a.comp_mask = IBV_WQ_INIT_ATTR_FLAGS;
	errno = 0;
	*out = ibv_create_wq(c, &a);
	if (!*out) return zr_errno();
	in->max_wr = a.max_wr;
	in->max_sge = a.max_sge;
	return 0;
}

int zr_modify_wq(struct ibv_wq *wq, uint32_t mask, uint32_t state, uint32_t cur, uint32_t flags, uint32_t flags_mask) {
	struct ibv_wq_attr a = {
		.attr_mask = mask,
		.wq_state = state,
		.curr_wq_state = cur,
		.flags = flags,
		.flags_mask = flags_mask,
	};
	errno = 0;
	return zr_ret(ibv_modify_wq(wq, &a));
}

int zr_destroy_wq(struct ibv_wq *wq) {
	errno = 0;
	return zr_ret(ibv_destroy_wq(wq));
}

int zr_post_wq_recv(struct ibv_wq *wq, struct zr_recv_wr *wr, int n, struct ibv_sge *sge, int *done) {
	struct ibv_recv_wr list[CHUNK], *bad;
	*done = 0;
	if (!wq->post_recv) return EOPNOTSUPP;
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
		errno = 0;
		int rc = ibv_post_wq_recv(wq, list, &bad);
		if (rc) {
			if (bad >= list && bad < list + k) *done += (int)(bad - list);
			return rc > 0 ? rc : zr_errno();
		}
		*done += k;
	}
	return 0;
}

int zr_create_rwq_ind_table(struct ibv_context *c, uint64_t *wqs, uint32_t log_size, struct ibv_rwq_ind_table **out) {
	if (log_size > MAX_TABLE_LOG) return EINVAL;
	struct ibv_wq **t = calloc((size_t)1 << log_size, sizeof *t);
	if (!t) return ENOMEM;
	for (size_t i = 0; i < (size_t)1 << log_size; i++) t[i] = (struct ibv_wq *)(uintptr_t)wqs[i];
	struct ibv_rwq_ind_table_init_attr a = {.log_ind_tbl_size = log_size, .ind_tbl = t};
	errno = 0;
	*out = ibv_create_rwq_ind_table(c, &a);
	int rc = *out ? 0 : zr_errno();
	free(t);
	return rc;
}

int zr_destroy_rwq_ind_table(struct ibv_rwq_ind_table *t) {
	errno = 0;
	return zr_ret(ibv_destroy_rwq_ind_table(t));
}
