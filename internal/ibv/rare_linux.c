#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "zr_rare.h"

static inline void *ptr(uint64_t v) { return (void *)(uintptr_t)v; }

#define MADE(o) ((o) ? 0 : zr_errno())

int zr_alloc_td(struct ibv_context *c, struct ibv_td **out) {
	struct ibv_td_init_attr a = {0};
	errno = 0;
	*out = ibv_alloc_td(c, &a);
	return MADE(*out);
}

int zr_dealloc_td(struct ibv_td *td) {
	errno = 0;
	return zr_ret(ibv_dealloc_td(td));
}

int zr_alloc_parent_domain(struct ibv_pd *pd, struct ibv_td *td, struct ibv_pd **out) {
	struct ibv_parent_domain_init_attr a = {.pd = pd, .td = td};
	errno = 0;
	*out = ibv_alloc_parent_domain(pd->context, &a);
	return MADE(*out);
}

// An import takes over the descriptor it is given, so it is given a duplicate.
// When it fails before taking it (not a uverbs device, no support), the
// duplicate is closed here; later failures close it themselves.
int zr_import_device(int fd, struct ibv_context **out) {
	struct stat st;
	if (fstat(fd, &st)) return zr_errno();
	if (!S_ISCHR(st.st_mode)) return EINVAL;
	int dup = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (dup < 0) return zr_errno();
	errno = 0;
	*out = ibv_import_device(dup);
	if (*out) return 0;
	int rc = zr_errno();
	if (rc == EOPNOTSUPP || rc == ENODEV || rc == ENOSYS) close(dup);
	return rc;
}

int zr_import_pd(struct ibv_context *c, uint32_t handle, struct ibv_pd **out) {
	errno = 0;
	*out = ibv_import_pd(c, handle);
	return MADE(*out);
}

void zr_unimport_pd(struct ibv_pd *pd) { ibv_unimport_pd(pd); }

int zr_import_mr(struct ibv_pd *pd, uint32_t handle, struct ibv_mr **out) {
	errno = 0;
	*out = ibv_import_mr(pd, handle);
	return MADE(*out);
}

void zr_unimport_mr(struct ibv_mr *mr) { ibv_unimport_mr(mr); }

int zr_import_dm(struct ibv_context *c, uint32_t handle, struct ibv_dm **out) {
	errno = 0;
	*out = ibv_import_dm(c, handle);
	return MADE(*out);
}

void zr_unimport_dm(struct ibv_dm *dm) { ibv_unimport_dm(dm); }

int zr_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t off, size_t len, uint64_t iova, int fd, int access, struct ibv_mr **out) {
	errno = 0;
	*out = ibv_reg_dmabuf_mr(pd, off, len, iova, fd, access);
	return MADE(*out);
}

int zr_alloc_null_mr(struct ibv_pd *pd, struct ibv_mr **out) {
	errno = 0;
	*out = ibv_alloc_null_mr(pd);
	return MADE(*out);
}

int zr_advise_mr(struct ibv_pd *pd, uint32_t advice, uint32_t flags, struct ibv_sge *sge, uint32_t n) {
	errno = 0;
	return zr_ret(ibv_advise_mr(pd, advice, flags, sge, n));
}

int zr_alloc_dm(struct ibv_context *c, size_t len, uint32_t log_align, struct ibv_dm **out) {
	struct ibv_alloc_dm_attr a = {.length = len, .log_align_req = log_align};
	errno = 0;
	*out = ibv_alloc_dm(c, &a);
	return MADE(*out);
}

int zr_free_dm(struct ibv_dm *dm) {
	errno = 0;
	return zr_ret(ibv_free_dm(dm));
}

int zr_memcpy_to_dm(struct ibv_dm *dm, uint64_t off, const void *src, size_t n) {
	if (!dm->memcpy_to_dm) return EOPNOTSUPP;
	errno = 0;
	return zr_ret(ibv_memcpy_to_dm(dm, off, src, n));
}

int zr_memcpy_from_dm(struct ibv_dm *dm, uint64_t off, void *dst, size_t n) {
	if (!dm->memcpy_from_dm) return EOPNOTSUPP;
	errno = 0;
	return zr_ret(ibv_memcpy_from_dm(dst, dm, off, n));
}

int zr_reg_dm_mr(struct ibv_pd *pd, struct ibv_dm *dm, uint64_t off, size_t len, unsigned access, struct ibv_mr **out) {
	errno = 0;
	*out = ibv_reg_dm_mr(pd, dm, off, len, access);
	return MADE(*out);
}

int zr_open_xrcd(struct ibv_context *c, int fd, int oflags, struct ibv_xrcd **out) {
	struct ibv_xrcd_init_attr a = {
		.comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS,
		.fd = fd,
		.oflags = oflags,
	};
	errno = 0;
	*out = ibv_open_xrcd(c, &a);
	return MADE(*out);
}

int zr_close_xrcd(struct ibv_xrcd *x) {
	errno = 0;
	return zr_ret(ibv_close_xrcd(x));
}

int zr_open_qp(struct ibv_context *c, struct ibv_xrcd *x, uint32_t qpn, uint32_t type, uint64_t cookie, struct ibv_qp **out) {
	struct ibv_qp_open_attr a = {
		.comp_mask = IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_XRCD | IBV_QP_OPEN_ATTR_CONTEXT | IBV_QP_OPEN_ATTR_TYPE,
		.qp_num = qpn,
		.xrcd = x,
		.qp_context = ptr(cookie),
		.qp_type = type,
	};
	errno = 0;
	*out = ibv_open_qp(c, &a);
	return MADE(*out);
}

// One operation at a time: each may answer with a handle of its own.
int zr_post_srq_ops(struct ibv_srq *srq, struct zr_ops_wr *wr, int n, struct ibv_sge *sge, int *done) {
	for (*done = 0; *done < n; ++*done) {
		struct zr_ops_wr *w = &wr[*done];
		struct ibv_ops_wr o = {.wr_id = w->id, .opcode = w->opcode, .flags = (int)w->flags}, *bad = NULL;
		o.tm.unexpected_cnt = w->unexpected_cnt;
		o.tm.handle = w->handle;
		o.tm.add.recv_wr_id = w->recv_id;
		o.tm.add.sg_list = sge + w->sge_off;
		o.tm.add.num_sge = (int)w->num_sge;
		o.tm.add.tag = w->tag;
		o.tm.add.mask = w->mask;
		errno = 0;
		int rc = zr_ret(ibv_post_srq_ops(srq, &o, &bad));
		if (rc) return rc;
		w->handle = o.tm.handle;
	}
	return 0;
}
