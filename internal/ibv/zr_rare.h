// The C side of what few devices have. The conventions are those of zr.h.
#ifndef ZRDMA_ZR_RARE_H
#define ZRDMA_ZR_RARE_H

#include "zr.h"

// A work queue to create. Kept in step with provider.WQInit's flat part.
struct zr_wq_init {
	uint64_t cookie;
	uint32_t type, max_wr, max_sge, create_flags;
};

// A tag-matching list operation. Kept in step with provider.OpsWR.
struct zr_ops_wr {
	uint64_t id, recv_id, tag, mask;
	uint32_t opcode, flags;
	uint32_t unexpected_cnt, handle;
	uint32_t sge_off, num_sge;
};

// An ESP action, without the pointers of the C struct. Kept in step with provider.ESPAttr.
struct zr_esp {
	uint64_t hard_limit_pkts, iv;
	uint32_t spi, seq, tfc_pad, flags;
	uint32_t iv_algo, salt, icv_len, key_len;
	uint8_t key[32];
	uint32_t replay_size;  // bits; 0 for no replay window
	uint32_t esn, comp_mask;
	uint32_t has_keymat;
};

// One header that ESP tunnel mode adds. Kept in step with provider.ESPEncap.
struct zr_esp_encap {
	uint16_t type, len;
	uint8_t val[40];
};

// rare_linux.c
int zr_alloc_td(struct ibv_context *c, struct ibv_td **out);
int zr_dealloc_td(struct ibv_td *td);
int zr_alloc_parent_domain(struct ibv_pd *pd, struct ibv_td *td, struct ibv_pd **out);
int zr_import_device(int fd, struct ibv_context **out);
int zr_import_pd(struct ibv_context *c, uint32_t handle, struct ibv_pd **out);
void zr_unimport_pd(struct ibv_pd *pd);
int zr_import_mr(struct ibv_pd *pd, uint32_t handle, struct ibv_mr **out);
void zr_unimport_mr(struct ibv_mr *mr);
int zr_import_dm(struct ibv_context *c, uint32_t handle, struct ibv_dm **out);
void zr_unimport_dm(struct ibv_dm *dm);
int zr_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t off, size_t len, uint64_t iova, int fd, int access, struct ibv_mr **out);
int zr_alloc_null_mr(struct ibv_pd *pd, struct ibv_mr **out);
int zr_advise_mr(struct ibv_pd *pd, uint32_t advice, uint32_t flags, struct ibv_sge *sge, uint32_t n);
int zr_alloc_dm(struct ibv_context *c, size_t len, uint32_t log_align, struct ibv_dm **out);
int zr_free_dm(struct ibv_dm *dm);
int zr_memcpy_to_dm(struct ibv_dm *dm, uint64_t off, const void *src, size_t n);
int zr_memcpy_from_dm(struct ibv_dm *dm, uint64_t off, void *dst, size_t n);
int zr_reg_dm_mr(struct ibv_pd *pd, struct ibv_dm *dm, uint64_t off, size_t len, unsigned access, struct ibv_mr **out);
int zr_open_xrcd(struct ibv_context *c, int fd, int oflags, struct ibv_xrcd **out);
int zr_close_xrcd(struct ibv_xrcd *x);
int zr_open_qp(struct ibv_context *c, struct ibv_xrcd *x, uint32_t qpn, uint32_t type, uint64_t cookie, struct ibv_qp **out);
int zr_post_srq_ops(struct ibv_srq *srq, struct zr_ops_wr *wr, int n, struct ibv_sge *sge, int *done);

// rare_wq_linux.c
int zr_create_wq(struct ibv_context *c, struct ibv_pd *pd, struct ibv_cq *cq, struct zr_wq_init *in, struct ibv_wq **out);
int zr_modify_wq(struct ibv_wq *wq, uint32_t mask, uint32_t state, uint32_t cur, uint32_t flags, uint32_t flags_mask);
int zr_destroy_wq(struct ibv_wq *wq);
int zr_post_wq_recv(struct ibv_wq *wq, struct zr_recv_wr *wr, int n, struct ibv_sge *sge, int *done);
int zr_create_rwq_ind_table(struct ibv_context *c, uint64_t *wqs, uint32_t log_size, struct ibv_rwq_ind_table **out);
int zr_destroy_rwq_ind_table(struct ibv_rwq_ind_table *t);

// rare_flow_linux.c
int zr_create_flow(struct ibv_qp *qp, void *attr, struct ibv_flow **out);
int zr_destroy_flow(struct ibv_flow *f);
int zr_create_esp(struct ibv_context *c, struct zr_esp *e, struct zr_esp_encap *encap, int n, struct ibv_flow_action **out);
int zr_modify_esp(struct ibv_flow_action *a, struct zr_esp *e, struct zr_esp_encap *encap, int n);
int zr_destroy_flow_action(struct ibv_flow_action *a);
int zr_create_counters(struct ibv_context *c, struct ibv_counters **out);
int zr_destroy_counters(struct ibv_counters *o);
int zr_attach_counters(struct ibv_counters *o, uint32_t what, uint32_t index, struct ibv_flow *f);
int zr_read_counters(struct ibv_counters *o, uint64_t *v, uint32_t n, uint32_t flags);

// Newer than the oldest headers we build with. A struct that those lack is
// declared here in our own words, with zeroed room after it so that a library
// whose struct has grown reads zeros. comp_mask says which fields count.
enum {
	ZR_MR_IOVA = 1, ZR_MR_ADDR = 2, ZR_MR_FD = 4, ZR_MR_FD_OFFSET = 8, ZR_MR_DMAH = 16, ZR_MR_BUF = 32,
	ZR_WR_FLUSH = 14,
};

// Same fields as ibv_mr_init_attr: rdma-core 59, buf since 64.
struct zr_mr_ex {
	size_t length;
	int access;
	uint64_t comp_mask, iova;
	void *addr;
	int fd;
	uint64_t fd_offset;
	void *dmah, *buf;
	uint64_t room[8];
};

// rare_new_linux.c: ENOSYS when the library does not have the symbol.
const char *zr_wr_opcode_str(int op);
int zr_query_port_speed(struct ibv_context *c, uint32_t port, uint64_t *speed);
int zr_reg_mr_ex(struct ibv_pd *pd, uint64_t mask, size_t len, int access, uint64_t iova, uint64_t addr, int fd,
		 uint64_t fd_off, void *dmah, void *buf, struct ibv_mr **out);
int zr_alloc_dmah(struct ibv_context *c, uint32_t mask, uint32_t cpu, uint8_t ph, uint8_t mem_type, void **out);
int zr_dealloc_dmah(void *dmah);
int zr_dm_export(struct ibv_dm *dm, int *fd);
int zr_alloc_buf(struct ibv_pd *pd, size_t n, uint64_t *addr, void **out);
int zr_free_buf(void *buf);
int zr_reg_buf_mr(struct ibv_pd *pd, void *buf, uint64_t addr, size_t n, int access, struct ibv_mr **out);
int zr_export_buf(void *buf, int *fd);
int zr_comp_cntr_caps(struct ibv_context *c, uint64_t *max, uint32_t *n, uint32_t *ops);
int zr_create_comp_cntr(struct ibv_context *c, uint32_t type, void **out);
int zr_destroy_comp_cntr(void *cc);
int zr_comp_cntr_set(void *cc, int err, uint64_t v);
int zr_comp_cntr_inc(void *cc, int err, uint64_t v);
int zr_comp_cntr_read(void *cc, int err, uint64_t *v);
int zr_attach_comp_cntr(struct ibv_qp *qp, void *cc, uint32_t ops);

// The flush operation sits right behind the last one that every supported
// header has. A queue pair has that slot when it was created with
// IBV_QP_EX_WITH_FLUSH, which a library without it refuses: the caller knows.
typedef void (*zr_flush_fn)(struct ibv_qp_ex *, uint32_t, uint64_t, size_t, uint8_t, uint8_t);
static inline zr_flush_fn zr_flush_op(struct ibv_qp_ex *q) {
	char *slot = (char *)q + offsetof(struct ibv_qp_ex, wr_atomic_write) + sizeof(void (*)(void));
	return *(zr_flush_fn *)slot;
}
// The inline of newer headers, for those that lack it too.
#define ibv_wr_flush(q, ...) (zr_flush_op(q)((q), __VA_ARGS__))

#endif
