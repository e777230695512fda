#include "zr.h"

// The list holds libibverbs' references to its devices; a device that is opened
// from it outlives the list, so each open walks a fresh list.
int zr_open(const char *name, struct ibv_context **out) {
	int n = 0;
	struct ibv_device **l = ibv_get_device_list(&n);
	if (!l) return zr_errno();
	int rc = ENODEV;
	for (int i = 0; i < n; i++) {
		if (strcmp(ibv_get_device_name(l[i]), name)) continue;
		errno = 0;
		*out = ibv_open_device(l[i]);
		rc = *out ? 0 : zr_errno();
		break;
	}
	ibv_free_device_list(l);
	return rc;
}

int zr_query_device_ex(struct ibv_context *c, struct ibv_device_attr_ex *a) {
	return zr_ret(ibv_query_device_ex(c, NULL, a));
}

int zr_query_port(struct ibv_context *c, uint8_t port, struct ibv_port_attr *a) {
	return zr_ret(ibv_query_port(c, port, a));
}

int zr_query_gid_table(struct ibv_context *c, struct ibv_gid_entry *e, size_t n, uint32_t flags, size_t *got) {
	ssize_t r = ibv_query_gid_table(c, e, n, flags);
	if (r < 0) return r == -1 ? zr_errno() : (int)-r;
	*got = (size_t)r;
	return 0;
}

int zr_query_rt_values(struct ibv_context *c, uint64_t *sec, uint64_t *nsec) {
	struct ibv_values_ex v = {.comp_mask = IBV_VALUES_MASK_RAW_CLOCK};
	int rc = zr_ret(ibv_query_rt_values_ex(c, &v));
	if (rc) return rc;
	if (!(v.comp_mask & IBV_VALUES_MASK_RAW_CLOCK)) return EOPNOTSUPP;
	*sec = (uint64_t)v.raw_clock.tv_sec;
	*nsec = (uint64_t)v.raw_clock.tv_nsec;
	return 0;
}

// An event names its object by the cookie stored at creation, read before the
// acknowledgement: after it the object may be destroyed by another thread.
int zr_get_async_event(struct ibv_context *c, struct zr_async_event *out) {
	struct ibv_async_event e;
	errno = 0;
	if (ibv_get_async_event(c, &e)) return zr_errno();
	memset(out, 0, sizeof *out);
	out->type = e.event_type;
	switch (e.event_type) {
	case IBV_EVENT_CQ_ERR:
		out->cookie = (uintptr_t)e.element.cq->cq_context;
		break;
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_COMM_EST:
	case IBV_EVENT_SQ_DRAINED:
	case IBV_EVENT_PATH_MIG:
	case IBV_EVENT_PATH_MIG_ERR:
	case IBV_EVENT_QP_LAST_WQE_REACHED:
		out->cookie = (uintptr_t)e.element.qp->qp_context;
		break;
	case IBV_EVENT_SRQ_ERR:
	case IBV_EVENT_SRQ_LIMIT_REACHED:
		out->cookie = (uintptr_t)e.element.srq->srq_context;
		break;
	case IBV_EVENT_WQ_FATAL:
		out->cookie = (uintptr_t)e.element.wq->wq_context;
		break;
	default:
		out->port = (uint32_t)e.element.port_num;
	}
	ibv_ack_async_event(&e);
	return 0;
}

void zr_static_providers(void) { ibv_static_providers(NULL, NULL); }

int zr_type_supported(uint32_t mask, int type) { return ibv_is_qpt_supported(mask, type); }
