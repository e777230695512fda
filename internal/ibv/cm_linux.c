#include "zr_cm.h"

int zr_cm_channel(struct rdma_event_channel **out) {
	errno = 0;
	*out = rdma_create_event_channel();
	return *out ? 0 : zr_errno();
}

void zr_cm_channel_free(struct rdma_event_channel *ch) { rdma_destroy_event_channel(ch); }

static int is_datagram(struct rdma_cm_id *id) { return id->ps == RDMA_PS_UDP || id->ps == RDMA_PS_IPOIB; }

// The private data pointer of a multicast event is the context of its group.
void zr_cm_fill_event(struct rdma_cm_event *ev, struct zr_cm_event *e) {
	memset(e, 0, sizeof *e);
	e->type = ev->event;
	e->status = ev->status;
	e->cookie = (uintptr_t)(ev->listen_id ? ev->listen_id : ev->id)->context;
	if (e->type == RDMA_CM_EVENT_MULTICAST_JOIN || e->type == RDMA_CM_EVENT_MULTICAST_ERROR) {
		e->group = (uintptr_t)ev->param.ud.private_data;
	} else if (e->type > RDMA_CM_EVENT_TIMEWAIT_EXIT) {
		// Newer events carry one number where the others have their parameters.
		memcpy(&e->arg, &ev->param, sizeof e->arg);
		return;
	} else if (ev->param.conn.private_data && ev->param.conn.private_data_len) {
		// The two kinds of parameters begin alike.
		e->conn.priv_len = ev->param.conn.private_data_len;
		memcpy(e->conn.priv, ev->param.conn.private_data, e->conn.priv_len);
	}
	if (is_datagram(ev->id)) {
		e->ah = ev->param.ud.ah_attr;
		e->ud_qpn = ev->param.ud.qp_num;
		e->ud_qkey = ev->param.ud.qkey;
		return;
	}
	e->conn.qpn = ev->param.conn.qp_num;
	e->conn.resp_res = ev->param.conn.responder_resources;
	e->conn.init_depth = ev->param.conn.initiator_depth;
	e->conn.flow = ev->param.conn.flow_control;
	e->conn.retry = ev->param.conn.retry_count;
	e->conn.rnr_retry = ev->param.conn.rnr_retry_count;
	e->conn.srq = ev->param.conn.srq;
}

// The event is copied and acknowledged here, so that no destroy and no migrate
// ever waits for one. The id of a request gets its cookie before anyone can see
// an event of it: it starts with its listener's.
int zr_cm_get_event(struct rdma_event_channel *ch, uint64_t fresh, struct zr_cm_event *e, struct rdma_cm_id **req) {
	struct rdma_cm_event *ev;
	*req = NULL;
	errno = 0;
	if (rdma_get_cm_event(ch, &ev)) return zr_errno();
	zr_cm_fill_event(ev, e);
	if (ev->event == RDMA_CM_EVENT_CONNECT_REQUEST) {
		ev->id->context = (void *)(uintptr_t)fresh;
		*req = ev->id;
	}
	rdma_ack_cm_event(ev);
	return 0;
}

int zr_cm_id(struct rdma_event_channel *ch, uint64_t cookie, int ps, struct rdma_cm_id **out) {
	errno = 0;
	return zr_ret(rdma_create_id(ch, out, (void *)(uintptr_t)cookie, ps));
}

int zr_cm_id_free(struct rdma_cm_id *id) {
	errno = 0;
	return zr_ret(rdma_destroy_id(id));
}

int zr_cm_migrate(struct rdma_cm_id *id, struct rdma_event_channel *ch) {
	errno = 0;
	return zr_ret(rdma_migrate_id(id, ch));
}

void zr_cm_addrs(struct rdma_cm_id *id, struct zr_addr *local, struct zr_addr *peer) {
	zr_cm_from_sa(rdma_get_local_addr(id), local);
	zr_cm_from_sa(rdma_get_peer_addr(id), peer);
	if (local->family) local->port = be16toh(rdma_get_src_port(id));
	if (peer->family) peer->port = be16toh(rdma_get_dst_port(id));
}

int zr_cm_bind(struct rdma_cm_id *id, struct zr_addr a) {
	struct sockaddr_storage s;
	errno = 0;
	return zr_ret(rdma_bind_addr(id, zr_cm_to_sa(&a, &s, NULL)));
}

int zr_cm_resolve_addr(struct rdma_cm_id *id, struct zr_addr src, struct zr_addr dst, int ms) {
	struct sockaddr_storage s, d;
	errno = 0;
	return zr_ret(rdma_resolve_addr(id, zr_cm_to_sa(&src, &s, NULL), zr_cm_to_sa(&dst, &d, NULL), ms));
}

int zr_cm_resolve_route(struct rdma_cm_id *id, int ms) {
	errno = 0;
	return zr_ret(rdma_resolve_route(id, ms));
}

static struct rdma_conn_param param(struct zr_cm_conn *c) {
	return (struct rdma_conn_param){
		.private_data = c->priv_len ? c->priv : NULL,
		.private_data_len = c->priv_len,
		.responder_resources = c->resp_res,
		.initiator_depth = c->init_depth,
		.flow_control = c->flow,
		.retry_count = c->retry,
		.rnr_retry_count = c->rnr_retry,
		.srq = c->srq,
		.qp_num = c->qpn,
	};
}

int zr_cm_connect(struct rdma_cm_id *id, struct zr_cm_conn *c) {
	struct rdma_conn_param p = param(c);
	errno = 0;
	return zr_ret(rdma_connect(id, &p));
}

int zr_cm_accept(struct rdma_cm_id *id, struct zr_cm_conn *c) {
	struct rdma_conn_param p = param(c);
	errno = 0;
	return zr_ret(rdma_accept(id, &p));
}

int zr_cm_reject(struct rdma_cm_id *id, const uint8_t *priv, uint8_t n, int ece) {
	errno = 0;
	return zr_ret(ece ? rdma_reject_ece(id, priv, n) : rdma_reject(id, priv, n));
}

int zr_cm_listen(struct rdma_cm_id *id, int backlog) {
	errno = 0;
	return zr_ret(rdma_listen(id, backlog));
}

int zr_cm_establish(struct rdma_cm_id *id) {
	errno = 0;
	return zr_ret(rdma_establish(id));
}

int zr_cm_disconnect(struct rdma_cm_id *id) {
	errno = 0;
	return zr_ret(rdma_disconnect(id));
}

int zr_cm_notify(struct rdma_cm_id *id, int event) {
	errno = 0;
	return zr_ret(rdma_notify(id, event));
}

int zr_cm_option(struct rdma_cm_id *id, int level, int name, void *v, size_t n) {
	errno = 0;
	return zr_ret(rdma_set_option(id, level, name, v, n));
}

int zr_cm_join(struct rdma_cm_id *id, struct zr_addr a, uint64_t group, uint32_t flags, int ex) {
	struct sockaddr_storage s;
	struct sockaddr *sa = zr_cm_to_sa(&a, &s, NULL);
	void *ctx = (void *)(uintptr_t)group;
	errno = 0;
	if (!ex) return zr_ret(rdma_join_multicast(id, sa, ctx));
	struct rdma_cm_join_mc_attr_ex m = {
		.comp_mask = RDMA_CM_JOIN_MC_ATTR_ADDRESS | RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS,
		.join_flags = flags,
		.addr = sa,
	};
	return zr_ret(rdma_join_multicast_ex(id, &m, ctx));
}

int zr_cm_leave(struct rdma_cm_id *id, struct zr_addr a) {
	struct sockaddr_storage s;
	errno = 0;
	return zr_ret(rdma_leave_multicast(id, zr_cm_to_sa(&a, &s, NULL)));
}

int zr_cm_ece(struct rdma_cm_id *id, struct ibv_ece *e, int set) {
	errno = 0;
	return zr_ret(set ? rdma_set_local_ece(id, e) : rdma_get_remote_ece(id, e));
}

const char *zr_cm_event_str(int type) { return rdma_event_str(type); }

int zr_cm_seterrno(int e) {
	errno = 0;
	return rdma_seterrno(e) ? zr_errno() : 0;
}
