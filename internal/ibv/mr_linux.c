#include "zr.h"

static inline void *ptr(uint64_t v) { return (void *)(uintptr_t)v; }

int zr_reg_mr(struct ibv_pd *pd, uint64_t addr, size_t len, uint32_t access, struct ibv_mr **out) {
	errno = 0;
	if (access & IBV_ACCESS_OPTIONAL_RANGE)
		*out = ibv_reg_mr_iova2(pd, ptr(addr), len, addr, access);
	else
		*out = ibv_reg_mr(pd, ptr(addr), len, access);
	return *out ? 0 : zr_errno();
}

int zr_reg_mr_iova(struct ibv_pd *pd, uint64_t addr, size_t len, uint64_t iova, uint32_t access, struct ibv_mr **out) {
	errno = 0;
	if (access & IBV_ACCESS_OPTIONAL_RANGE)
		*out = ibv_reg_mr_iova2(pd, ptr(addr), len, iova, access);
	else
		*out = ibv_reg_mr_iova(pd, ptr(addr), len, iova, access);
	return *out ? 0 : zr_errno();
}

// ibv_rereg_mr answers with an enumeration; the errno says why.
int zr_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd, uint64_t addr, size_t len, int access, int *code) {
	errno = 0;
	*code = ibv_rereg_mr(mr, flags, pd, ptr(addr), len, access);
	if (*code == 0) return 0;
	return errno ? errno : (*code > 0 ? *code : EINVAL);
}

int zr_alloc_mw(struct ibv_pd *pd, int type, struct ibv_mw **out) {
	errno = 0;
	*out = ibv_alloc_mw(pd, type);
	return *out ? 0 : zr_errno();
}

int zr_bind_mw(struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mr *mr, uint64_t id, uint32_t flags, uint64_t addr,
	       uint64_t len, uint32_t access) {
	struct ibv_mw_bind b = {
		.wr_id = id,
		.send_flags = flags,
		.bind_info = {.mr = mr, .addr = addr, .length = len, .mw_access_flags = access},
	};
	errno = 0;
	return zr_ret(ibv_bind_mw(qp, mw, &b));
}
