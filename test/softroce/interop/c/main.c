#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "peer.h"

struct opts o = {
	.dev = "rxe0", .test = "mix", .dir = "both", .port = 18600, .mtu = 1024, .timeout = 60, .ack = 14, .psn = -1,
	.seed = 1, .n = 100, .max = 65536, .depth = 8,
};
struct sums sums;
static struct timespec began;

static void report(const char *why)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	double s = now.tv_sec - began.tv_sec + (now.tv_nsec - began.tv_nsec) / 1e9;
	printf("{\"peer\":\"c\",\"side\":\"%s\",\"test\":\"%s\",\"ok\":%s,\"mtu\":%" PRIu64 ",\"ops\":%" PRIu64 ",\"sent_bytes\":%" PRIu64
	       ",\"messages\":%" PRIu64 ",\"received_bytes\":%" PRIu64 ",\"expected_errors\":%" PRIu64 ",\"seconds\":%.3f}\n",
	       o.server ? "server" : "client", o.test, why ? "false" : "true", sums.mtu, sums.ops, sums.sent, sums.messages, sums.received,
	       sums.expected_errors, s);
	fflush(stdout);
}

void die(const char *fmt, ...)
{
	char why[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	fprintf(stderr, "peer (C, %s): %s\n", o.server ? "server" : "client", why);
	report(why);
	_exit(1);
}

static void late(int sig)
{
	(void)sig;
	static const char why[] = "peer (C): not done in time\n";
	if (write(2, why, sizeof why - 1)) {}
	report("late");
	_exit(3);
}

static void parse(int argc, char **argv)
{
	static const struct option long_opts[] = {
		{"s", 0, 0, 's'}, {"c", 1, 0, 'c'}, {"a", 1, 0, 'a'}, {"p", 1, 0, 'p'}, {"t", 1, 0, 't'}, {"d", 1, 0, 'd'},
		{"m", 1, 0, 'm'}, {"n", 1, 0, 'n'}, {"oob", 0, 0, 'o'}, {"psn", 1, 0, 'P'}, {"seed", 1, 0, 'S'}, {"max", 1, 0, 'M'}, {"min", 1, 0, 'I'},
		{"depth", 1, 0, 'D'}, {"dir", 1, 0, 'r'}, {"timeout", 1, 0, 'T'}, {"ack", 1, 0, 'A'}, {0},
	};
	for (int ch; (ch = getopt_long_only(argc, argv, "", long_opts, NULL)) != -1;) {
		switch (ch) {
		case 's': o.server = true; break;
		case 'c': o.addr = optarg; break;
		case 'a': o.local = optarg; break;
		case 'p': o.port = atoi(optarg); break;
		case 't': o.test = optarg; break;
		case 'd': o.dev = optarg; break;
		case 'm': o.mtu = atoi(optarg); break;
		case 'n': o.n = strtoull(optarg, NULL, 0); break;
		case 'o': o.oob = true; break;
		case 'P': o.psn = strtoll(optarg, NULL, 0); break;
		case 'S': o.seed = strtoull(optarg, NULL, 0); break;
		case 'I': o.min = strtoul(optarg, NULL, 0); break;
		case 'M': o.max = strtoul(optarg, NULL, 0); break;
		case 'D': o.depth = atoi(optarg); break;
		case 'r': o.dir = optarg; break;
		case 'T': o.timeout = atoi(optarg); break;
		case 'A': o.ack = atoi(optarg); break;
		default: exit(2);
		}
	}
	CHECK(o.server != !!o.addr, "one of -s and -c ADDRESS is required");
	CHECK(o.local || (!o.server && !o.oob), "-a ADDRESS is required");
}

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*run)(void); } tests[] = {
		{"mix", test_mix}, {"stream", test_stream}, {"inv", test_inv}, {"refuse", test_refuse}, {"rnr", test_rnr},
	};
	clock_gettime(CLOCK_MONOTONIC, &began);
	parse(argc, argv);
	signal(SIGALRM, late);
	signal(SIGPIPE, SIG_IGN);
	alarm(o.timeout);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
		if (strcmp(tests[i].name, o.test))
			continue;
		if (o.server) {
			(o.oob ? oob_listen : cm_listen)();
			puts("listening");
			fflush(stdout);
		}
		clock_gettime(CLOCK_MONOTONIC, &began);
		tests[i].run();
		report(NULL);
		return 0;
	}
	die("no test \"%s\"", o.test);
}
