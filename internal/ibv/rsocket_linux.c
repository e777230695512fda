// rsocket(7). What the shims know beyond the headers (librdmacm 44):
//   - rpoll with a timeout that can expire leaves the library's count of pollers
//     too high, after which every rpoll of the process spins. So a timeout is a
//     timerfd in the set, and rpoll itself gets 0 or -1;
//   - rshutdown and rclose put the socket's completion channel in blocking mode
//     and wait there for the sends, endlessly when the peer is gone. They do so
//     only for a socket in O_NONBLOCK mode, so they are called with that mode
//     off and the channel itself in non-blocking mode;
//   - rrecvmsg takes its flags from msg_flags.

#include "zr_rsocket.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

// For calls that return a number, or -1 with errno.
#define ZR_NUM(out, call)                         \
	do {                                      \
		errno = 0;                        \
		int64_t zr_n = (int64_t)(call);   \
		if (zr_n < 0) return zr_errno();  \
		*(out) = (__typeof__(*(out)))zr_n; \
		return 0;                         \
	} while (0)
#define ZR_RC(call)                \
	do {                       \
		errno = 0;         \
		return zr_ret(call); \
	} while (0)

int zr_rsocket(int domain, int type, int protocol, int *fd) { ZR_NUM(fd, rsocket(domain, type, protocol)); }
int zr_rbind(int s, const void *addr, uint32_t len) { ZR_RC(rbind(s, addr, len)); }
int zr_rlisten(int s, int backlog) { ZR_RC(rlisten(s, backlog)); }
int zr_raccept(int s, void *addr, uint32_t *len, int *fd) { ZR_NUM(fd, raccept(s, addr, len)); }
int zr_rconnect(int s, const void *addr, uint32_t len) { ZR_RC(rconnect(s, addr, len)); }

int zr_rrecv(int s, void *b, size_t n, int flags, int64_t *got) { ZR_NUM(got, rrecv(s, b, n, flags)); }
int zr_rrecvfrom(int s, void *b, size_t n, int flags, void *addr, uint32_t *len, int64_t *got) {
	ZR_NUM(got, rrecvfrom(s, b, n, flags, addr, len));
}
int zr_rrecvmsg(int s, void *iov, int cnt, int flags, int64_t *got) {
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = (size_t)cnt, .msg_flags = flags};
	ZR_NUM(got, rrecvmsg(s, &m, flags));
}
int zr_rsend(int s, const void *b, size_t n, int flags, int64_t *got) { ZR_NUM(got, rsend(s, b, n, flags)); }
int zr_rsendto(int s, const void *b, size_t n, int flags, const void *addr, uint32_t len, int64_t *got) {
	ZR_NUM(got, rsendto(s, b, n, flags, addr, len));
}
int zr_rsendmsg(int s, void *iov, int cnt, int flags, int64_t *got) {
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = (size_t)cnt};
	ZR_NUM(got, rsendmsg(s, &m, flags));
}
int zr_rread(int s, void *b, size_t n, int64_t *got) { ZR_NUM(got, rread(s, b, n)); }
int zr_rreadv(int s, void *iov, int cnt, int64_t *got) { ZR_NUM(got, rreadv(s, iov, cnt)); }
int zr_rwrite(int s, const void *b, size_t n, int64_t *got) { ZR_NUM(got, rwrite(s, b, n)); }
int zr_rwritev(int s, void *iov, int cnt, int64_t *got) { ZR_NUM(got, rwritev(s, iov, cnt)); }

static int timer_fd(int timeout_ms, int *fd) {
	struct itimerspec t = {.it_value = {timeout_ms / 1000, (long)(timeout_ms % 1000) * 1000000}};
	*fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (*fd < 0) return zr_errno();
	if (timerfd_settime(*fd, 0, &t, NULL)) {
		int rc = zr_errno();
		close(*fd);
		return rc;
	}
	return 0;
}

int zr_rpoll(struct pollfd *fds, uint64_t n, int timeout_ms, int *ready) {
	if (timeout_ms <= 0) ZR_NUM(ready, rpoll(fds, n, timeout_ms < 0 ? -1 : 0));
	struct pollfd *all = malloc((n + 1) * sizeof *all);
	if (!all) return ENOMEM;
	int tfd, rc = timer_fd(timeout_ms, &tfd);
	if (!rc) {
		memcpy(all, fds, n * sizeof *all);
		all[n] = (struct pollfd){.fd = tfd, .events = POLLIN};
		errno = 0;
		int r = rpoll(all, n + 1, -1);
		rc = r < 0 ? zr_errno() : 0;
		*ready = 0;
		for (uint64_t i = 0; i < n && !rc; i++) {
			fds[i].revents = all[i].revents;
			*ready += all[i].revents != 0;
		}
		close(tfd);
	}
	free(all);
	return rc;
}

int zr_rselect(int nfds, fd_set *r, fd_set *w, fd_set *e, int timeout_ms, int *ready) {
	if (timeout_ms <= 0) {
		struct timeval now = {0, 0};
		ZR_NUM(ready, rselect(nfds, r, w, e, timeout_ms < 0 ? NULL : &now));
	}
	int tfd, rc = timer_fd(timeout_ms, &tfd);
	if (rc) return rc;
	if (tfd >= FD_SETSIZE) {
		close(tfd);
		return EMFILE;
	}
	FD_SET(tfd, r);
	errno = 0;
	int got = rselect(nfds > tfd ? nfds : tfd + 1, r, w, e, NULL);
	rc = got < 0 ? zr_errno() : 0;
	*ready = got;
	if (!rc && FD_ISSET(tfd, r)) --*ready;
	FD_CLR(tfd, r);
	close(tfd);
	return rc;
}

int zr_rgetpeername(int s, void *addr, uint32_t *len) { ZR_RC(rgetpeername(s, addr, len)); }
int zr_rgetsockname(int s, void *addr, uint32_t *len) { ZR_RC(rgetsockname(s, addr, len)); }
int zr_rsetsockopt(int s, int level, int name, const void *v, uint32_t len) { ZR_RC(rsetsockopt(s, level, name, v, len)); }
int zr_rgetsockopt(int s, int level, int name, void *v, uint32_t *len) { ZR_RC(rgetsockopt(s, level, name, v, len)); }
int zr_rfcntl(int s, int cmd, long arg, int *out) { ZR_NUM(out, rfcntl(s, cmd, arg)); }

// The chosen offset may be any address, so only -1 is a failure.
int zr_riomap(int s, void *b, size_t n, int prot, int flags, int64_t off, int64_t *out) {
	errno = 0;
	*out = riomap(s, b, n, prot, flags, off);
	return *out == -1 ? zr_errno() : 0;
}
int zr_riounmap(int s, void *b, size_t n) { ZR_RC(riounmap(s, b, n)); }
int zr_riowrite(int s, const void *b, size_t n, int64_t off, int flags, int64_t *got) {
	ZR_NUM(got, riowrite(s, b, n, off, flags));
}

int zr_rs_eventfd(int *fd) { ZR_NUM(fd, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); }

static int is_channel(int fd) {
	static const char want[] = "anon_inode:[infinibandevent]";
	char path[40], link[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(path, link, sizeof link);
	return n == (ssize_t)sizeof want - 1 && !memcmp(link, want, sizeof want - 1);
}

// With s in blocking mode: does fd follow when the mode of s changes?
static int follows(int s, int fd) {
	int f = fcntl(fd, F_GETFL);
	if (f < 0 || f & O_NONBLOCK || !is_channel(fd)) return 0;
	if (rfcntl(s, F_SETFL, (long)O_NONBLOCK)) return 0;
	f = fcntl(fd, F_GETFL);
	if (rfcntl(s, F_SETFL, 0L)) return 0;
	return f >= 0 && f & O_NONBLOCK && !(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

// librdmacm has no call for the channel, so it is recognised: of the process's
// completion channels it is the one that goes in and out of non-blocking mode
// with the socket. The caller lets nobody else change modes meanwhile.
int zr_rs_channel(int s) {
	int found = -1;
	if (rfcntl(s, F_SETFL, 0L)) return -1;
	for (int fd = s + 1; fd < s + 17 && found < 0; fd++)
		if (follows(s, fd)) found = fd;
	DIR *d = found < 0 ? opendir("/proc/self/fd") : NULL;
	for (struct dirent *e; d && found < 0 && (e = readdir(d));)
		if (e->d_name[0] != '.' && follows(s, atoi(e->d_name))) found = atoi(e->d_name);
	if (d) closedir(d);
	rfcntl(s, F_SETFL, (long)O_NONBLOCK);
	return found;
}

static void no_wait(int s, int channel) {
	if (channel < 0 || rfcntl(s, F_SETFL, 0L)) return;
	fcntl(channel, F_SETFL, O_NONBLOCK);
}

int zr_rshutdown(int s, int how, int channel) {
	no_wait(s, channel);
	errno = 0;
	int rc = zr_ret(rshutdown(s, how));
	rfcntl(s, F_SETFL, (long)O_NONBLOCK);
	// The library skips a change of mode that it believes made already.
	if (channel >= 0) fcntl(channel, F_SETFL, O_NONBLOCK);
	return rc;
}

int zr_rclose(int s, int channel) {
	no_wait(s, channel);
	ZR_RC(rclose(s));
}
