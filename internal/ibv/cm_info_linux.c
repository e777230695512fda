#include <fcntl.h>

#include "zr_cm.h"

void zr_cm_from_sa(const struct sockaddr *sa, struct zr_addr *a) {
	memset(a, 0, sizeof *a);
	if (!sa) return;
	if (sa->sa_family == AF_INET) {
		const struct sockaddr_in *s = (const struct sockaddr_in *)sa;
		a->family = AF_INET;
		a->port = be16toh(s->sin_port);
		memcpy(a->ip, &s->sin_addr, 4);
	} else if (sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *s = (const struct sockaddr_in6 *)sa;
		a->family = AF_INET6;
		a->port = be16toh(s->sin6_port);
		a->scope = s->sin6_scope_id;
		memcpy(a->ip, &s->sin6_addr, 16);
	}
}

// NULL for no address.
struct sockaddr *zr_cm_to_sa(const struct zr_addr *a, struct sockaddr_storage *st, socklen_t *len) {
	memset(st, 0, sizeof *st);
	if (len) *len = 0;
	if (a->family == AF_INET) {
		struct sockaddr_in *s = (struct sockaddr_in *)st;
		s->sin_family = AF_INET;
		s->sin_port = htobe16(a->port);
		memcpy(&s->sin_addr, a->ip, 4);
		if (len) *len = sizeof *s;
	} else if (a->family == AF_INET6) {
		struct sockaddr_in6 *s = (struct sockaddr_in6 *)st;
		s->sin6_family = AF_INET6;
		s->sin6_port = htobe16(a->port);
		s->sin6_scope_id = a->scope;
		memcpy(&s->sin6_addr, a->ip, 16);
		if (len) *len = sizeof *s;
	} else {
		return NULL;
	}
	return (struct sockaddr *)st;
}

static void to_info(struct zr_cm_info *in, struct rdma_addrinfo *ai, struct sockaddr_storage st[2]) {
	memset(ai, 0, sizeof *ai);
	ai->ai_flags = in->flags;
	ai->ai_family = in->family;
	ai->ai_qp_type = in->qp_type;
	ai->ai_port_space = in->port_space;
	ai->ai_src_addr = zr_cm_to_sa(&in->src, &st[0], &ai->ai_src_len);
	ai->ai_dst_addr = zr_cm_to_sa(&in->dst, &st[1], &ai->ai_dst_len);
}

// A failure of the name lookup is a text in *gai instead of an errno.
int zr_cm_getaddrinfo(const char *node, const char *service, struct zr_cm_info *hints, struct rdma_addrinfo **out,
		      const char **gai) {
	struct rdma_addrinfo h;
	struct sockaddr_storage st[2];
	to_info(hints, &h, st);
	*gai = NULL;
	errno = 0;
	int rc = rdma_getaddrinfo(node, service, &h, out);
	if (rc == 0) return 0;
	if (rc < -1) {
		*gai = gai_strerror(rc);
		return ENOENT;
	}
	return rc > 0 ? rc : zr_errno();
}

void zr_cm_freeaddrinfo(struct rdma_addrinfo *ai) { rdma_freeaddrinfo(ai); }

// Only with RAI_PASSIVE: this binds and returns; the active form would wait in C
// for the address and the route. The channel of the endpoint is its own and is
// made non-blocking, so that rdma_get_request returns EAGAIN.
int zr_cm_create_ep(struct zr_cm_info *in, struct ibv_pd *pd, uint64_t cookie, struct rdma_cm_id **out) {
	struct rdma_addrinfo ai;
	struct sockaddr_storage st[2];
	to_info(in, &ai, st);
	if (!(ai.ai_flags & RAI_PASSIVE)) return EINVAL;
	errno = 0;
	if (rdma_create_ep(out, &ai, pd, NULL)) return zr_errno();
	int fd = (*out)->channel->fd;
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK)) {
		int rc = zr_errno();
		rdma_destroy_ep(*out);
		return rc;
	}
	(*out)->context = (void *)(uintptr_t)cookie;
	return 0;
}

void zr_cm_destroy_ep(struct rdma_cm_id *id) { rdma_destroy_ep(id); }

// The new id is synchronous as its listener is: every call on it would block.
// Moving it to ch ends that, and acknowledges its request.
int zr_cm_get_request(struct rdma_cm_id *listen, struct rdma_event_channel *ch, uint64_t fresh, struct zr_cm_event *e,
		      struct rdma_cm_id **out) {
	struct rdma_cm_id *id;
	errno = 0;
	if (rdma_get_request(listen, &id)) return zr_errno();
	zr_cm_fill_event(id->event, e);
	id->context = (void *)(uintptr_t)fresh;
	errno = 0;
	int rc = zr_ret(rdma_migrate_id(id, ch));
	if (rc) {
		rdma_destroy_ep(id);
		return rc;
	}
	*out = id;
	return 0;
}

int zr_cm_devices(struct ibv_context ***list, int *n) {
	errno = 0;
	*list = rdma_get_devices(n);
	return *list ? 0 : zr_errno();
}

void zr_cm_devices_free(struct ibv_context **list) { rdma_free_devices(list); }

// rdma-core 60 and later: found at run time, whatever headers this was built with.

int zr_cm_resolve_info(struct rdma_cm_id *id, const char *node, const char *service, struct zr_cm_info *hints) {
	int (*rdma_resolve_addrinfo)(struct rdma_cm_id *, const char *, const char *, const struct rdma_addrinfo *);
	struct rdma_addrinfo h;
	struct sockaddr_storage st[2];
	*(void **)&rdma_resolve_addrinfo = zr_sym(ZR_LIB_RDMACM, "rdma_resolve_addrinfo");
	if (!rdma_resolve_addrinfo) return EOPNOTSUPP;
	to_info(hints, &h, st);
	errno = 0;
	return zr_ret(rdma_resolve_addrinfo(id, node, service, &h));
}

int zr_cm_query_info(struct rdma_cm_id *id, struct rdma_addrinfo **out) {
	int (*rdma_query_addrinfo)(struct rdma_cm_id *, struct rdma_addrinfo **);
	*(void **)&rdma_query_addrinfo = zr_sym(ZR_LIB_RDMACM, "rdma_query_addrinfo");
	if (!rdma_query_addrinfo) return EOPNOTSUPP;
	errno = 0;
	return zr_ret(rdma_query_addrinfo(id, out));
}

int zr_cm_write_event(struct rdma_cm_id *id, int type, int status, uint64_t arg) {
	int (*rdma_write_cm_event)(struct rdma_cm_id *, enum rdma_cm_event_type, int, uint64_t);
	*(void **)&rdma_write_cm_event = zr_sym(ZR_LIB_RDMACM, "rdma_write_cm_event");
	if (!rdma_write_cm_event) return EOPNOTSUPP;
	errno = 0;
	return zr_ret(rdma_write_cm_event(id, type, status, arg));
}
