#include <endian.h>
#include <string.h>

#include "peer.h"

static uint64_t scramble(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

uint64_t draw(unsigned side, uint64_t i, unsigned field)
{
	return scramble(scramble(scramble(o.seed) ^ (side * 64 + field)) + i);
}

static uint32_t length(uint64_t class, uint64_t v)
{
	uint64_t n;
	unsigned top = 0;
	switch (class % 16) {
	case 0: return o.min;
	case 1: return o.min > 1 ? o.min : 1;
	case 2: case 3: // about the end of a packet
		n = (256ull << v % 5) * (1 + (v >> 8) % 4) + (v >> 16) % 3 - 1;
		break;
	case 4: return o.max;
	default:
		while (o.max >> top > 1)
			top++;
		n = (v >> 8) & ((2ull << v % (top + 1)) - 1);
	}
	n = n < o.min ? o.min : n;
	return n > o.max ? o.max : n;
}

struct op plan(unsigned side, uint64_t i)
{
	static const enum kind kinds[20] = {
		SEND, SEND, SEND, SEND, SEND_IMM, SEND_IMM, SEND_IMM, WRITE, WRITE, WRITE, WRITE,
		WRITE_IMM, WRITE_IMM, WRITE_IMM, READ, READ, READ, FADD, FADD, CAS,
	};
	struct op p = {
		.kind = kinds[draw(side, i, 0) % 20],
		.len = length(draw(side, i, 1), draw(side, i, 2)),
		.off = draw(side, i, 3) % CANARY,
		.nsge = 1 + draw(side, i, 4) % 3,
		.counter = draw(side, i, 5) % COUNTERS,
		.key = draw(side, i, 6),
		.value = draw(side, i, 7),
		.at = draw(side, i, 8),
		.miss = draw(side, i, 9) % 4 == 0,
	};
	if (p.kind == FADD || p.kind == CAS)
		p.len = 8, p.off = 0, p.nsge = 1;
	if (p.len < 3)
		p.nsge = 1;
	return p;
}

static uint64_t word(uint64_t key, uint64_t j)
{
	uint64_t x = key + (j + 1) * 0x9e3779b97f4a7c15;
	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9;
	return htole64(x ^ x >> 32);
}

// walk goes over the pieces of a pattern that lie in one word each.
#define WALK(n, from, body)                                       \
	for (uint64_t at = 0; at < (n);) {                        \
		uint64_t w = word(key, ((from) + at) / 8);        \
		size_t skip = ((from) + at) % 8, piece = 8 - skip; \
		if (piece > (n)-at)                               \
			piece = (n)-at;                           \
		const uint8_t *want = (uint8_t *)&w + skip;       \
		body;                                             \
		at += piece;                                      \
	}

void fill(uint8_t *p, size_t n, uint64_t key, uint64_t from)
{
	WALK(n, from, memcpy(p + at, want, piece));
}

long differs(const uint8_t *p, size_t n, uint64_t key, uint64_t from)
{
	WALK(n, from, if (memcmp(p + at, want, piece)) return at);
	return -1;
}
