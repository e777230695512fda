#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "peer.h"

static int listener;

static struct addrinfo *address(const char *host)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *ai;
	char service[16];
	snprintf(service, sizeof service, "%d", o.port);
	int e = getaddrinfo(host, service, &hints, &ai);
	CHECK(!e, "address %s: %s", host, gai_strerror(e));
	return ai;
}

void oob_listen(void)
{
	struct addrinfo *ai = address(o.local);
	int on = 1;
	listener = socket(ai->ai_family, SOCK_STREAM, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	CHECK(listener >= 0 && !bind(listener, ai->ai_addr, ai->ai_addrlen) && !listen(listener, 8), "listen on %s: %m", o.local);
	freeaddrinfo(ai);
}

static int dial(void)
{
	struct addrinfo *ai = address(o.addr);
	int fd = socket(ai->ai_family, SOCK_STREAM, 0);
	CHECK(fd >= 0 && !connect(fd, ai->ai_addr, ai->ai_addrlen), "connect to %s: %m", o.addr);
	freeaddrinfo(ai);
	return fd;
}

static void say(int fd, const char *line)
{
	size_t n = strlen(line);
	CHECK(write(fd, line, n) == (ssize_t)n, "write to the peer: %m");
}

static void hear(int fd, char *line, size_t n)
{
	size_t i = 0;
	for (; i + 1 < n; i++) {
		CHECK(read(fd, line + i, 1) == 1, "the peer closed its text connection");
		if (line[i] == '\n')
			break;
	}
	line[i] = 0;
}

// both says a word and waits until the peer has said it.
static void both(int fd, const char *word)
{
	char line[64];
	snprintf(line, sizeof line, "%s\n", word);
	say(fd, line);
	hear(fd, line, sizeof line);
	CHECK(!strcmp(line, word), "the peer said \"%s\" instead of \"%s\"", line, word);
}

static struct ibv_context *device(void)
{
	struct ibv_device **l = ibv_get_device_list(NULL);
	CHECK(l, "ibv_get_device_list: %m");
	for (int i = 0; l[i]; i++) {
		if (strcmp(ibv_get_device_name(l[i]), o.dev))
			continue;
		struct ibv_context *c = ibv_open_device(l[i]);
		CHECK(c, "ibv_open_device: %m");
		ibv_free_device_list(l);
		return c;
	}
	die("no device %s", o.dev);
}

// gid_index finds the GID that is the local address.
static int gid_index(struct ibv_context *dev, union ibv_gid *g)
{
	uint8_t want[16] = {[10] = 0xff, [11] = 0xff};
	CHECK(inet_pton(AF_INET, o.local, want + 12) == 1 || inet_pton(AF_INET6, o.local, want) == 1, "-a %s is no address", o.local);
	for (int i = 0; i < 64 && !ibv_query_gid(dev, 1, i, g); i++)
		if (!memcmp(g->raw, want, 16))
			return i;
	die("no GID for %s", o.local);
}

static void modify(struct conn *c, struct ibv_qp_attr *a, int mask)
{
	int e = ibv_modify_qp(c->qp, a, mask | IBV_QP_STATE);
	CHECK(!e, "ibv_modify_qp to state %d: %s", a->qp_state, strerror(e));
}

void oob_open(struct conn *c, const struct shape *s)
{
	c->tcp = o.server ? accept(listener, NULL, NULL) : dial();
	CHECK(c->tcp >= 0, "accept: %m");
	c->dev = device();
	setup(c, s);
	struct ibv_qp_init_attr in = qp_init(c, s);
	c->qp = ibv_create_qp(c->pd, &in);
	CHECK(c->qp, "ibv_create_qp: %m");
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_INIT, .port_num = 1,
		.qp_access_flags = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC,
	};
	modify(c, &a, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
	for (unsigned i = 0; i < s->first_recv; i++)
		post_recv(c, i);

	union ibv_gid gid;
	int sgid = gid_index(c->dev, &gid);
	uint32_t psn = o.psn;
	if (o.psn < 0)
		CHECK(getrandom(&psn, sizeof psn, 0) == sizeof psn, "getrandom: %m");
	psn &= 0xffffff;
	char line[128], hex[33];
	for (int i = 0; i < 16; i++)
		sprintf(hex + 2 * i, "%02x", gid.raw[i]);
	snprintf(line, sizeof line, "%06x %06x %s\n", c->qp->qp_num, psn, hex);
	say(c->tcp, line);
	hear(c->tcp, line, sizeof line);
	uint32_t qpn, rpsn;
	CHECK(sscanf(line, "%x %x %32s", &qpn, &rpsn, hex) == 3 && strlen(hex) == 32, "the peer's address is \"%s\"", line);
	a = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_256, .dest_qp_num = qpn, .rq_psn = rpsn,
		.max_dest_rd_atomic = 8, .min_rnr_timer = 12,
		.ah_attr = {.is_global = 1, .port_num = 1, .grh = {.sgid_index = sgid, .hop_limit = 64}},
	};
	while (128 << a.path_mtu < o.mtu)
		a.path_mtu++;
	for (int i = 0; i < 16; i++)
		sscanf(hex + 2 * i, "%2hhx", &a.ah_attr.grh.dgid.raw[i]);
	modify(c, &a, IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
	a = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTS, .sq_psn = psn, .timeout = o.ack, .retry_cnt = 7, .rnr_retry = s->rnr_retry, .max_rd_atomic = 8,
	};
	modify(c, &a, IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC);
	both(c->tcp, "ready");
}

void oob_settle(struct conn *c)
{
	both(c->tcp, "done");
	close(c->tcp);
}
