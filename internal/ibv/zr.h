// The C side of the door. Conventions of every zr_ function:
//   - it returns 0 or a positive errno as its value, never through errno;
//   - what crosses is pointer-free, and a struct that crosses has the layout of
//     the Go struct of the same name (checked at compile time in layout.go);
//   - objects cross as C pointers that only Go fields of C pointer type hold;
//   - no provider lock is held when it returns.
#ifndef ZRDMA_ZR_H
#define ZRDMA_ZR_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>
#include <rdma/rsocket.h>

enum { ZR_LIB_VERBS, ZR_LIB_RDMACM };

void ibv_static_providers(void *unused, ...);  // declared by the headers for static programs only

// NULL when the library is loaded, else the loader's message.
const char *zr_lib_error(int which);
// The address of an optional, newer symbol, or NULL.
void *zr_sym(int which, const char *name);

// 0 or the errno left behind by a call that failed; never 0 on failure.
static inline int zr_errno(void) { return errno ? errno : EIO; }
// For calls that return 0 or -1 with errno.
static inline int zr_ret(int rc) { return rc == 0 ? 0 : (rc > 0 ? rc : zr_errno()); }

// An object of the library in the calls of the data path: a C pointer as a
// number, which spares cgo's search for Go pointers behind it, a quarter of the
// cost of a crossing.
typedef uintptr_t zr_obj;
static inline void *zr_ptr(zr_obj o) { return (void *)o; }

// A send work request. Kept in step with provider.WR.
struct zr_wr {
	uint64_t id, remote_addr, compare_add, swap;
	uint64_t ah;  // struct ibv_ah *
	uint64_t mw;  // struct ibv_mw *
	uint64_t mr;  // struct ibv_mr * of a bind
	uint64_t bind_addr, bind_length;
	uint64_t hdr;  // TSO header
	uint32_t opcode, flags;
	uint32_t imm;  // host order; or the rkey to invalidate
	uint32_t rkey;
	uint32_t remote_qpn, remote_qkey;
	uint32_t srqn, bind_access;
	uint32_t sge_off, num_sge;  // into the SGE array that comes along
	uint16_t mss, hdr_sz;
	uint32_t flush_type, flush_level, pad;
};

// A receive work request. Kept in step with provider.RecvWR.
struct zr_recv_wr {
	uint64_t id;
	uint32_t sge_off, num_sge;
};

// An extended completion. Kept in step with provider.WCEx.
struct zr_wc_ex {
	struct ibv_wc wc;
	uint64_t ts, wallclock_ns, tm_tag;
	uint32_t tm_priv, flow_tag;
	uint16_t cvlan, pad[3];
};

struct zr_qp_init {
	uint64_t cookie, send_ops, hash_fields;
	struct ibv_qp_cap cap;
	uint32_t type, sq_sig_all, create_flags, source_qpn, ex;
	uint16_t max_tso_header;
	uint8_t hash_func, hash_key_len;
	uint8_t hash_key[64];
};

struct zr_async_event {
	uint64_t cookie;
	uint32_t type, port;
};

// device.c
int zr_open(const char *name, struct ibv_context **out);
int zr_query_device_ex(struct ibv_context *c, struct ibv_device_attr_ex *a);
int zr_query_port(struct ibv_context *c, uint8_t port, struct ibv_port_attr *a);
int zr_query_gid_table(struct ibv_context *c, struct ibv_gid_entry *e, size_t n, uint32_t flags, size_t *got);
int zr_query_rt_values(struct ibv_context *c, uint64_t *sec, uint64_t *nsec);
int zr_get_async_event(struct ibv_context *c, struct zr_async_event *out);
void zr_static_providers(void);
int zr_type_supported(uint32_t mask, int type);

// mr.c
int zr_reg_mr(struct ibv_pd *pd, uint64_t addr, size_t len, uint32_t access, struct ibv_mr **out);
int zr_reg_mr_iova(struct ibv_pd *pd, uint64_t addr, size_t len, uint64_t iova, uint32_t access, struct ibv_mr **out);
int zr_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd, uint64_t addr, size_t len, int access, int *code);
int zr_alloc_mw(struct ibv_pd *pd, int type, struct ibv_mw **out);
int zr_bind_mw(struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mr *mr, uint64_t id, uint32_t flags, uint64_t addr,
	       uint64_t len, uint32_t access);

// cq.c
int zr_create_cq(struct ibv_context *c, int cqe, uint64_t cookie, struct ibv_comp_channel *ch, int vec, struct ibv_cq **out);
int zr_create_cq_ex(struct ibv_context *c, uint32_t cqe, uint64_t cookie, struct ibv_comp_channel *ch, uint32_t vec,
		    uint64_t wc_flags, uint32_t comp_mask, uint32_t flags, struct ibv_pd *pd, struct ibv_cq **out);
int zr_get_cq_event(struct ibv_comp_channel *ch, uint64_t *cookie);
int zr_poll_cq(zr_obj cq, int n, struct ibv_wc *wc);
int zr_poll_spin(zr_obj cq, int n, struct ibv_wc *wc, int64_t ns);
int zr_poll_cq_ex(struct ibv_cq *cq, int n, struct zr_wc_ex *wc, uint64_t wc_flags, int one_by_one);
int zr_modify_cq(struct ibv_cq *cq, uint16_t count, uint16_t period);
// spin.c
int64_t zr_tick(void);  // the coarse clock in ns: no system call, a few ns
int zr_spin(struct ibv_cq *a, struct ibv_cq *b, int n, struct ibv_wc *wc, int want, int64_t ns);
// wait.c
struct zr_wait {
	int32_t armed;  // an event was asked for and not taken yet
	int32_t spun;   // 1: the spin found a completion, 2: in vain
	int64_t tick;   // CLOCK_MONOTONIC_COARSE at the start, in ns
	uint64_t other; // cookie of another queue whose event was taken, or 0
};
int zr_wait_cq(zr_obj cq, zr_obj ch, int n, struct ibv_wc *wc, int64_t spin_ns, int64_t nap_ns, struct zr_wait *w);

// qp.c
int zr_create_qp(struct ibv_context *c, struct ibv_pd *pd, struct ibv_cq *scq, struct ibv_cq *rcq, struct ibv_srq *srq,
		 struct ibv_xrcd *xrcd, struct ibv_rwq_ind_table *tbl, struct zr_qp_init *in, struct ibv_qp **out);
int zr_query_qp(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask, struct zr_qp_init *in);
int zr_modify_rate_limit(struct ibv_qp *qp, uint32_t rate, uint32_t burst, uint16_t pkt);
int zr_create_srq(struct ibv_pd *pd, uint64_t cookie, struct ibv_srq_attr *a, struct ibv_srq **out);
int zr_create_srq_ex(struct ibv_context *c, struct ibv_pd *pd, struct ibv_xrcd *x, struct ibv_cq *cq, uint64_t cookie,
		     struct ibv_srq_attr *a, uint32_t type, uint32_t tags, uint32_t ops, struct ibv_srq **out);

// post.c: each returns an errno and stores in *done how many were posted.
int zr_post_send(zr_obj qp, struct zr_wr *wr, int n, struct ibv_sge *sge, int *done);
int zr_post_recv(zr_obj qp, struct zr_recv_wr *wr, int n, struct ibv_sge *sge, int *done);
int zr_post_srq_recv(struct ibv_srq *srq, struct zr_recv_wr *wr, int n, struct ibv_sge *sge, int *done);
// Posts receives, then sends, then polls for want completions of either queue.
struct zr_exchange {
	int64_t spin_ns;
	int32_t n_recv, n_send, n_wc, want;
	int32_t recvs, sends, wcs;  // how many were posted, and polled
	int32_t failed;             // which step: 1 receives, 2 sends, 3 the poll
	int64_t tick;               // CLOCK_MONOTONIC_COARSE, in ns
};
int zr_exchange(zr_obj qp, zr_obj scq, zr_obj rcq, struct zr_recv_wr *recv, struct ibv_sge *recv_sge, struct zr_wr *send,
		struct ibv_sge *send_sge, struct ibv_wc *wc, struct zr_exchange *x);
// builder.c: all or nothing. bad is the index of the request that was refused.
int zr_wr_post(struct ibv_qp *qp, struct zr_wr *wr, int n, struct ibv_sge *sge, int dry, int sge_bug, int *bad);

#endif
