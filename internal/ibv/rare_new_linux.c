#include "zr_rare.h"

// What libibverbs got after rdma-core 44. The symbols are looked up by name and
// called through prototypes written here, so that this builds with headers of
// any age; the library found at run time decides.
#define FIND(ret, f, params, name)                       \
	ret(*f) params;                                  \
	*(void **)&f = zr_sym(ZR_LIB_VERBS, name);       \
	if (!f) return ENOSYS

static inline int made(const void *o) { return o ? 0 : zr_errno(); }

// NULL when the library has no texts.
const char *zr_wr_opcode_str(int op) {
	const char *(*f)(int);
	*(void **)&f = zr_sym(ZR_LIB_VERBS, "ibv_wr_opcode_str");
	return f ? f(op) : NULL;
}

int zr_query_port_speed(struct ibv_context *c, uint32_t port, uint64_t *speed) {
	FIND(int, f, (struct ibv_context *, uint32_t, uint64_t *), "ibv_query_port_speed");
	errno = 0;
	return zr_ret(f(c, port, speed));
}

int zr_reg_mr_ex(struct ibv_pd *pd, uint64_t mask, size_t len, int access, uint64_t iova, uint64_t addr, int fd,
		 uint64_t fd_off, void *dmah, void *buf, struct ibv_mr **out) {
	FIND(struct ibv_mr *, f, (struct ibv_pd *, struct zr_mr_ex *), "ibv_reg_mr_ex");
	struct zr_mr_ex a = {
		.length = len, .access = access, .comp_mask = mask, .iova = iova, .addr = (void *)(uintptr_t)addr,
		.fd = fd, .fd_offset = fd_off, .dmah = dmah, .buf = buf,
	};
	errno = 0;
	*out = f(pd, &a);
	return made(*out);
}

int zr_alloc_dmah(struct ibv_context *c, uint32_t mask, uint32_t cpu, uint8_t ph, uint8_t mem_type, void **out) {
	struct {
		uint32_t mask, cpu;
		uint8_t ph, mem_type;
		uint64_t room[8];
	} a = {mask, cpu, ph, mem_type, {0}};
	FIND(void *, f, (struct ibv_context *, void *), "ibv_alloc_dmah");
	errno = 0;
	*out = f(c, &a);
	return made(*out);
}

int zr_dealloc_dmah(void *dmah) {
	FIND(int, f, (void *), "ibv_dealloc_dmah");
	errno = 0;
	return zr_ret(f(dmah));
}

// A file descriptor, or -1 with errno.
static int fd_ret(int r, int *fd) {
	if (r < 0) return zr_errno();
	*fd = r;
	return 0;
}

int zr_dm_export(struct ibv_dm *dm, int *fd) {
	FIND(int, f, (struct ibv_dm *), "ibv_dm_export_dmabuf_fd");
	errno = 0;
	return fd_ret(f(dm), fd);
}

int zr_alloc_buf(struct ibv_pd *pd, size_t n, uint64_t *addr, void **out) {
	FIND(void *, f, (struct ibv_pd *, size_t, void **), "ibv_alloc_buf");
	errno = 0;
	void *p = f(pd, n, out);
	*addr = (uintptr_t)p;
	return made(p);
}

int zr_free_buf(void *buf) {
	FIND(void, f, (void *), "ibv_free_buf");
	f(buf);
	return 0;
}

int zr_reg_buf_mr(struct ibv_pd *pd, void *buf, uint64_t addr, size_t n, int access, struct ibv_mr **out) {
	FIND(struct ibv_mr *, f, (struct ibv_pd *, void *, void *, size_t, int), "ibv_reg_buf_mr");
	errno = 0;
	*out = f(pd, buf, (void *)(uintptr_t)addr, n, access);
	return made(*out);
}

int zr_export_buf(void *buf, int *fd) {
	FIND(int, f, (void *), "ibv_export_buf_dmabuf_fd");
	errno = 0;
	return fd_ret(f(buf), fd);
}

// Completion counters: in no release by 2026-08, laid out as on the main branch then.

int zr_comp_cntr_caps(struct ibv_context *c, uint64_t *max, uint32_t *n, uint32_t *ops) {
	struct {
		uint64_t max;
		uint32_t n, ops;
	} a = {0};
	// ibv_query_comp_cntr_caps is an inline around this; it tells the size.
	FIND(int, f, (struct ibv_context *, void *, size_t), "_ibv_query_comp_cntr_caps");
	errno = 0;
	int rc = zr_ret(f(c, &a, sizeof a));
	*max = a.max;
	*n = a.n;
	*ops = a.ops;
	return rc;
}

int zr_create_comp_cntr(struct ibv_context *c, uint32_t type, void **out) {
	uint32_t a[16] = {0, type};  // comp_mask, type, flags, room
	FIND(void *, f, (struct ibv_context *, void *), "ibv_create_comp_cntr");
	errno = 0;
	*out = f(c, a);
	return made(*out);
}

int zr_destroy_comp_cntr(void *cc) {
	FIND(int, f, (void *), "ibv_destroy_comp_cntr");
	errno = 0;
	return zr_ret(f(cc));
}

int zr_comp_cntr_set(void *cc, int err, uint64_t v) {
	errno = 0;
	if (err) {
		FIND(int, f, (void *, uint64_t), "ibv_set_err_comp_cntr");
		return zr_ret(f(cc, v));
	}
	FIND(int, f, (void *, uint64_t), "ibv_set_comp_cntr");
	return zr_ret(f(cc, v));
}

int zr_comp_cntr_inc(void *cc, int err, uint64_t v) {
	errno = 0;
	if (err) {
		FIND(int, f, (void *, uint64_t), "ibv_inc_err_comp_cntr");
		return zr_ret(f(cc, v));
	}
	FIND(int, f, (void *, uint64_t), "ibv_inc_comp_cntr");
	return zr_ret(f(cc, v));
}

int zr_comp_cntr_read(void *cc, int err, uint64_t *v) {
	errno = 0;
	if (err) {
		FIND(int, f, (void *, uint64_t *), "ibv_read_err_comp_cntr");
		return zr_ret(f(cc, v));
	}
	FIND(int, f, (void *, uint64_t *), "ibv_read_comp_cntr");
	return zr_ret(f(cc, v));
}

int zr_attach_comp_cntr(struct ibv_qp *qp, void *cc, uint32_t ops) {
	uint32_t a[16] = {0, ops};  // comp_mask, op_mask, room
	FIND(int, f, (struct ibv_qp *, void *, void *), "ibv_qp_attach_comp_cntr");
	errno = 0;
	return zr_ret(f(qp, cc, a));
}
