// The loader: libibverbs.so.1 and librdmacm.so.1 are found at run time. Every
// exported function that our code, or an inline function of the headers, calls
// is defined here as a trampoline to what dlsym found, so a program built with
// this package has neither library in its needed list.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "zr.h"

// The headers wrap these names in macros; the trampolines are the plain names.
#undef ibv_get_device_list
#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void *lib_verbs, *lib_rdmacm;
static char err_verbs[256], err_rdmacm[256];

#define ZR_FUNC(lib, ret, name, params, args, fail) static ret(*p_##name) params;
#define ZR_VOID(lib, name, params, args) static void(*p_##name) params;
#include "zr_syms.h"
#undef ZR_FUNC
#undef ZR_VOID
static int (*p_rfcntl)(int, int, ...);
static void (*p_ibv_static_providers)(void *, ...);

static void *open_lib(const char *name, char *err, size_t n) {
	void *h = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	if (!h) {
		const char *e = dlerror();
		snprintf(err, n, "%s", e ? e : "dlopen failed");
	}
	return h;
}

static void load(void) {
	lib_verbs = open_lib("libibverbs.so.1", err_verbs, sizeof err_verbs);
	lib_rdmacm = open_lib("librdmacm.so.1", err_rdmacm, sizeof err_rdmacm);
#define ZR_FUNC(lib, ret, name, params, args, fail) \
	if (lib_##lib) *(void **)&p_##name = dlsym(lib_##lib, #name);
#define ZR_VOID(lib, name, params, args) \
	if (lib_##lib) *(void **)&p_##name = dlsym(lib_##lib, #name);
#include "zr_syms.h"
#undef ZR_FUNC
#undef ZR_VOID
	if (lib_rdmacm) *(void **)&p_rfcntl = dlsym(lib_rdmacm, "rfcntl");
	if (lib_verbs) *(void **)&p_ibv_static_providers = dlsym(lib_verbs, "ibv_static_providers");
}

static inline void zr_once(void) { pthread_once(&once, load); }

#define ZR_FUNC(lib, ret, name, params, args, fail) \
	ret name params {                           \
		zr_once();                          \
		if (!p_##name) {                    \
			errno = ENOSYS;             \
			return fail;                \
		}                                   \
		return p_##name args;               \
	}
#define ZR_VOID(lib, name, params, args)  \
	void name params {                \
		zr_once();                \
		if (p_##name) p_##name args; \
	}
#include "zr_syms.h"
#undef ZR_FUNC
#undef ZR_VOID

// rfcntl takes one optional int or long; passing a long serves both.
int rfcntl(int socket, int cmd, ...) {
	va_list ap;
	va_start(ap, cmd);
	long arg = va_arg(ap, long);
	va_end(ap);
	zr_once();
	if (!p_rfcntl) {
		errno = ENOSYS;
		return -1;
	}
	return p_rfcntl(socket, cmd, arg);
}

// Only means something in a statically linked program; the shared library does
// not export it in every version, and doing nothing is then right.
void ibv_static_providers(void *unused, ...) {
	(void)unused;
	zr_once();
	if (p_ibv_static_providers) p_ibv_static_providers(NULL, NULL);
}

const char *zr_lib_error(int which) {
	zr_once();
	if (which == ZR_LIB_VERBS) return lib_verbs ? NULL : err_verbs;
	return lib_rdmacm ? NULL : err_rdmacm;
}

void *zr_sym(int which, const char *name) {
	zr_once();
	void *h = which == ZR_LIB_VERBS ? lib_verbs : lib_rdmacm;
	return h ? dlsym(h, name) : NULL;
}
