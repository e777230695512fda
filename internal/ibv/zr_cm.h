// The connection manager's part of the door; conventions as in zr.h.
#ifndef ZRDMA_ZR_CM_H
#define ZRDMA_ZR_CM_H

#include "zr.h"
#include <netdb.h>

// An address. family 0 is none; port is in host order.
struct zr_addr {
	uint16_t family, port;
	uint32_t scope;
	uint8_t ip[16];
};

struct zr_cm_conn {
	uint32_t qpn;
	uint8_t resp_res, init_depth, flow, retry, rnr_retry, srq, priv_len, pad;
	uint8_t priv[256];
};

struct zr_cm_event {
	uint64_t cookie;  // of the id, or of the listening id with a request
	uint64_t group, arg;
	uint32_t type;
	int32_t status;
	struct zr_cm_conn conn;
	uint32_t ud_qpn, ud_qkey;
	struct ibv_ah_attr ah;
};

struct zr_cm_post {
	uint64_t id, addr, length, mr, remote_addr, ah;
	uint32_t op, flags, rkey, remote_qpn;
};

struct zr_cm_info {
	int flags, family, qp_type, port_space;
	struct zr_addr src, dst;
};

// cm_linux.c
int zr_cm_channel(struct rdma_event_channel **out);
void zr_cm_channel_free(struct rdma_event_channel *ch);
int zr_cm_get_event(struct rdma_event_channel *ch, uint64_t fresh, struct zr_cm_event *e, struct rdma_cm_id **req);
int zr_cm_id(struct rdma_event_channel *ch, uint64_t cookie, int ps, struct rdma_cm_id **out);
int zr_cm_id_free(struct rdma_cm_id *id);
int zr_cm_migrate(struct rdma_cm_id *id, struct rdma_event_channel *ch);
void zr_cm_addrs(struct rdma_cm_id *id, struct zr_addr *local, struct zr_addr *peer);
int zr_cm_bind(struct rdma_cm_id *id, struct zr_addr a);
int zr_cm_resolve_addr(struct rdma_cm_id *id, struct zr_addr src, struct zr_addr dst, int ms);
int zr_cm_resolve_route(struct rdma_cm_id *id, int ms);
int zr_cm_connect(struct rdma_cm_id *id, struct zr_cm_conn *c);
int zr_cm_accept(struct rdma_cm_id *id, struct zr_cm_conn *c);
int zr_cm_reject(struct rdma_cm_id *id, const uint8_t *priv, uint8_t n, int ece);
int zr_cm_listen(struct rdma_cm_id *id, int backlog);
int zr_cm_establish(struct rdma_cm_id *id);
int zr_cm_disconnect(struct rdma_cm_id *id);
int zr_cm_notify(struct rdma_cm_id *id, int event);
int zr_cm_option(struct rdma_cm_id *id, int level, int name, void *v, size_t n);
int zr_cm_join(struct rdma_cm_id *id, struct zr_addr a, uint64_t group, uint32_t flags, int ex);
int zr_cm_leave(struct rdma_cm_id *id, struct zr_addr a);
int zr_cm_ece(struct rdma_cm_id *id, struct ibv_ece *e, int set);
const char *zr_cm_event_str(int type);
int zr_cm_seterrno(int e);

// cm_qp_linux.c
int zr_cm_create_qp(struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_cq *scq, struct ibv_cq *rcq,
		    struct ibv_srq *srq, struct zr_qp_init *in);
int zr_cm_destroy_qp(struct rdma_cm_id *id);
int zr_cm_init_qp_attr(struct rdma_cm_id *id, struct ibv_qp_attr *a, int *mask);
int zr_cm_create_srq(struct rdma_cm_id *id, struct ibv_pd *pd, uint64_t cookie, struct ibv_srq_attr *a, int ex,
		     uint32_t type);
void zr_cm_destroy_srq(struct rdma_cm_id *id);
int zr_cm_reg(struct rdma_cm_id *id, int kind, uint64_t addr, size_t len, struct ibv_mr **out);
int zr_cm_dereg(struct ibv_mr *mr);
int zr_cm_post(struct rdma_cm_id *id, struct zr_cm_post *p);
int zr_cm_postv(struct rdma_cm_id *id, struct zr_cm_post *p, struct ibv_sge *sge, int n);
int zr_cm_get_comp(struct rdma_cm_id *id, int recv, struct ibv_wc *wc);

// cm_info_linux.c
void zr_cm_from_sa(const struct sockaddr *sa, struct zr_addr *a);
struct sockaddr *zr_cm_to_sa(const struct zr_addr *a, struct sockaddr_storage *s, socklen_t *len);
int zr_cm_getaddrinfo(const char *node, const char *service, struct zr_cm_info *hints, struct rdma_addrinfo **out,
		      const char **gai);
void zr_cm_freeaddrinfo(struct rdma_addrinfo *ai);
int zr_cm_create_ep(struct zr_cm_info *in, struct ibv_pd *pd, uint64_t cookie, struct rdma_cm_id **out);
void zr_cm_destroy_ep(struct rdma_cm_id *id);
int zr_cm_get_request(struct rdma_cm_id *listen, struct rdma_event_channel *ch, uint64_t fresh, struct zr_cm_event *e,
		      struct rdma_cm_id **out);
void zr_cm_fill_event(struct rdma_cm_event *ev, struct zr_cm_event *e);
int zr_cm_devices(struct ibv_context ***list, int *n);
void zr_cm_devices_free(struct ibv_context **list);
int zr_cm_resolve_info(struct rdma_cm_id *id, const char *node, const char *service, struct zr_cm_info *hints);
int zr_cm_query_info(struct rdma_cm_id *id, struct rdma_addrinfo **out);
int zr_cm_write_event(struct rdma_cm_id *id, int type, int status, uint64_t arg);

#endif
