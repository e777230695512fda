// The rsocket part of the door. Same conventions as zr.h. No call waits for the
// network, but for zr_rpoll and zr_rselect, which wait as they are told to.
#ifndef ZRDMA_ZR_RSOCKET_H
#define ZRDMA_ZR_RSOCKET_H

#include "zr.h"

#include <sys/types.h>

int zr_rsocket(int domain, int type, int protocol, int *fd);
int zr_rbind(int s, const void *addr, uint32_t len);
int zr_rlisten(int s, int backlog);
int zr_raccept(int s, void *addr, uint32_t *len, int *fd);
int zr_rconnect(int s, const void *addr, uint32_t len);
int zr_rshutdown(int s, int how, int channel);
int zr_rclose(int s, int channel);

int zr_rrecv(int s, void *b, size_t n, int flags, int64_t *got);
int zr_rrecvfrom(int s, void *b, size_t n, int flags, void *addr, uint32_t *len, int64_t *got);
int zr_rrecvmsg(int s, void *iov, int cnt, int flags, int64_t *got);
int zr_rsend(int s, const void *b, size_t n, int flags, int64_t *got);
int zr_rsendto(int s, const void *b, size_t n, int flags, const void *addr, uint32_t len, int64_t *got);
int zr_rsendmsg(int s, void *iov, int cnt, int flags, int64_t *got);
int zr_rread(int s, void *b, size_t n, int64_t *got);
int zr_rreadv(int s, void *iov, int cnt, int64_t *got);
int zr_rwrite(int s, const void *b, size_t n, int64_t *got);
int zr_rwritev(int s, void *iov, int cnt, int64_t *got);

int zr_rpoll(struct pollfd *fds, uint64_t n, int timeout_ms, int *ready);
int zr_rselect(int nfds, fd_set *r, fd_set *w, fd_set *e, int timeout_ms, int *ready);

int zr_rgetpeername(int s, void *addr, uint32_t *len);
int zr_rgetsockname(int s, void *addr, uint32_t *len);
int zr_rsetsockopt(int s, int level, int name, const void *v, uint32_t len);
int zr_rgetsockopt(int s, int level, int name, void *v, uint32_t *len);
int zr_rfcntl(int s, int cmd, long arg, int *out);

int zr_riomap(int s, void *b, size_t n, int prot, int flags, int64_t off, int64_t *out);
int zr_riounmap(int s, void *b, size_t n);
int zr_riowrite(int s, const void *b, size_t n, int64_t off, int flags, int64_t *got);

// The descriptor of the socket's completion channel, or -1: see rsocket_linux.c.
int zr_rs_channel(int s);
int zr_rs_eventfd(int *fd);

#endif
