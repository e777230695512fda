#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "peer.h"

static struct rdma_event_channel *ec;
static struct rdma_cm_id *listener;

static struct sockaddr_storage address(const char *host, int port)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST}, *ai;
	struct sockaddr_storage s = {0};
	char service[16];
	snprintf(service, sizeof service, "%d", port);
	int e = getaddrinfo(host, service, &hints, &ai);
	CHECK(!e, "address %s: %s", host, gai_strerror(e));
	memcpy(&s, ai->ai_addr, ai->ai_addrlen);
	freeaddrinfo(ai);
	return s;
}

// expect waits for an event and returns its id. What is left of former
// connections is passed over.
static struct rdma_cm_id *expect(enum rdma_cm_event_type want)
{
	for (;;) {
		struct rdma_cm_event *e;
		CHECK(!rdma_get_cm_event(ec, &e), "rdma_get_cm_event: %m");
		enum rdma_cm_event_type got = e->event;
		int status = e->status;
		struct rdma_cm_id *id = e->id;
		rdma_ack_cm_event(e);
		if (got == want)
			return id;
		if (got == RDMA_CM_EVENT_TIMEWAIT_EXIT || (want == RDMA_CM_EVENT_CONNECT_REQUEST && got == RDMA_CM_EVENT_DISCONNECTED))
			continue;
		die("%s, status %d, instead of %s", rdma_event_str(got), status, rdma_event_str(want));
	}
}

static void channel(void)
{
	ec = rdma_create_event_channel();
	CHECK(ec, "rdma_create_event_channel: %m");
}

static void timeout(struct rdma_cm_id *id)
{
	uint8_t t = o.ack;
	CHECK(!rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &t, sizeof t), "rdma_set_option: %m");
}

void cm_listen(void)
{
	channel();
	struct sockaddr_storage a = address(o.local, o.port);
	CHECK(!rdma_create_id(ec, &listener, NULL, RDMA_PS_TCP), "rdma_create_id: %m");
	CHECK(!rdma_bind_addr(listener, (struct sockaddr *)&a), "rdma_bind_addr: %m");
	CHECK(!rdma_listen(listener, 8), "rdma_listen: %m");
}

static void queue_pair(struct conn *c, const struct shape *s)
{
	c->dev = c->id->verbs;
	setup(c, s);
	struct ibv_qp_init_attr in = qp_init(c, s);
	CHECK(!rdma_create_qp(c->id, c->pd, &in), "rdma_create_qp: %m");
	c->qp = c->id->qp;
	for (unsigned i = 0; i < s->first_recv; i++)
		post_recv(c, i);
}

void cm_open(struct conn *c, const struct shape *s)
{
	struct rdma_conn_param p = {.responder_resources = 8, .initiator_depth = 8, .retry_count = 7, .rnr_retry_count = s->rnr_retry};
	if (o.server) {
		c->id = expect(RDMA_CM_EVENT_CONNECT_REQUEST);
		timeout(c->id);
		queue_pair(c, s);
		CHECK(!rdma_accept(c->id, &p), "rdma_accept: %m");
	} else {
		if (!ec)
			channel();
		struct sockaddr_storage to = address(o.addr, o.port), from;
		if (o.local)
			from = address(o.local, 0);
		CHECK(!rdma_create_id(ec, &c->id, NULL, RDMA_PS_TCP), "rdma_create_id: %m");
		CHECK(!rdma_resolve_addr(c->id, o.local ? (struct sockaddr *)&from : NULL, (struct sockaddr *)&to, 5000), "rdma_resolve_addr: %m");
		expect(RDMA_CM_EVENT_ADDR_RESOLVED);
		timeout(c->id);
		CHECK(!rdma_resolve_route(c->id, 5000), "rdma_resolve_route: %m");
		expect(RDMA_CM_EVENT_ROUTE_RESOLVED);
		queue_pair(c, s);
		CHECK(!rdma_connect(c->id, &p), "rdma_connect: %m");
	}
	expect(RDMA_CM_EVENT_ESTABLISHED);
}

// The client, which has heard all it wants, disconnects; the server's queue pair
// answers until it is told.
void cm_settle(struct conn *c)
{
	if (o.server) {
		expect(RDMA_CM_EVENT_DISCONNECTED);
		rdma_disconnect(c->id);
	} else {
		CHECK(!rdma_disconnect(c->id), "rdma_disconnect: %m");
		expect(RDMA_CM_EVENT_DISCONNECTED);
	}
}
