// The C side of the interoperation tests: every operation of a reliable
// connection, from a plan that both ends draw from one seed. ../peer is the same
// program in Go; the two speak one protocol, see ../peer/doc.go.
#ifndef PEER_H
#define PEER_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct opts {
	bool server, oob;
	const char *addr, *local, *dev, *test, *dir;
	int port, mtu, timeout, ack, port_num;
	int64_t psn; // -1: random
	uint64_t seed, n;
	uint32_t min, max, depth;
};
extern struct opts o;

// What a peer tells of its memory, in the first message of each connection.
struct remote {
	uint64_t win, win_len, win_key, ro, ro_len, ro_key, atm, atm_key;
};

enum { MARGIN = 64, CANARY = 32, COUNTERS = 16, HELLO = 72 };

struct region {
	uint8_t *p;
	size_t len;
	struct ibv_mr *mr;
};

struct conn {
	struct rdma_cm_id *id; // NULL when connected by text
	int tcp;
	struct ibv_context *dev;
	struct ibv_pd *pd;
	struct ibv_comp_channel *ch;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	size_t slot; // bytes of a slot in recv, win and src
	unsigned nrecv;
	struct region recv, win, src, ro, atm;
	struct remote peer;
	struct ibv_wc wc[16];
	int nwc, iwc;
	unsigned events;
	bool settled;
};

// What a connection is made with.
struct shape {
	unsigned nrecv, first_recv, nslots, sq;
	int rnr_retry;
};

// conn.c
void setup(struct conn *c, const struct shape *s);
struct ibv_qp_init_attr qp_init(struct conn *c, const struct shape *s);
void post_recv(struct conn *c, unsigned slot);
void teardown(struct conn *c);
struct ibv_wc *next_wc(struct conn *c);
void hello(struct conn *c);
void post(struct conn *c, struct ibv_send_wr *wr);
void control(struct conn *c, uint32_t imm);

// cm.c, oob.c: open makes a connection or waits for one; settle waits until both
// ends have seen the completions they want, after which queue pairs may go.
void cm_listen(void);
void cm_open(struct conn *c, const struct shape *s);
void cm_settle(struct conn *c);
void oob_listen(void);
void oob_open(struct conn *c, const struct shape *s);
void oob_settle(struct conn *c);
void conn_open(struct conn *c, const struct shape *s);
void conn_settle(struct conn *c);
void conn_end(struct conn *c);

// plan.c
enum kind { SEND, SEND_IMM, WRITE, WRITE_IMM, READ, FADD, CAS };
struct op {
	enum kind kind;
	uint32_t len, off, nsge, counter;
	uint64_t key, value, at; // at: where a READ begins, in parts of 2^64
	bool miss;               // a CAS that must not match
};
uint64_t draw(unsigned side, uint64_t i, unsigned field);
struct op plan(unsigned side, uint64_t i);
void fill(uint8_t *p, size_t n, uint64_t key, uint64_t from);
long differs(const uint8_t *p, size_t n, uint64_t key, uint64_t from); // -1: nowhere

// Work request ids: the kind of request above, a number below.
enum { ID_RECV = 1, ID_OP = 2, ID_CTL = 3 };
static inline uint64_t wrid(unsigned kind, uint64_t n) { return (uint64_t)kind << 56 | n; }
static inline unsigned id_kind(uint64_t id) { return id >> 56; }
static inline uint64_t id_n(uint64_t id) { return id & ((1ull << 56) - 1); }

// Immediates: a tag above, 24 bits below.
enum { T_SEND = 0x10, T_WRITE = 0x20, T_END = 0xe0, T_OK = 0xa0, T_FIN = 0xf0, T_CREDIT = 0xc0 };
static inline uint32_t tagged(unsigned tag, uint64_t n) { return tag << 24 | (n & 0xffffff); }

static inline unsigned me(void) { return o.server ? 1 : 0; }
static inline bool acts(unsigned side) { return o.dir[0] == 'b' || (o.dir[0] == 's') == (side == 1); }

// gone says whether the last message may be left unacknowledged: a client that
// has it may disconnect at once, and text connections end in step instead.
static inline bool gone(void) { return o.server && !o.oob; }

// The tests. Each ends the program if anything is not as it must be.
void test_mix(void);
void test_stream(void);
void test_inv(void);
void test_refuse(void);
void test_rnr(void);

struct sums {
	uint64_t ops, sent, messages, received, expected_errors, mtu;
};
extern struct sums sums;

// die prints and exits with 1.
void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
#define CHECK(cond, ...) do { if (!(cond)) die(__VA_ARGS__); } while (0)

#endif
