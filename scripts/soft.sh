#!/bin/sh
# The soft tier: the verbs suite on the software device under the race detector,
# over UDP on loopback and, at the same time, on a network in memory. It needs no
# privilege. SOFT_ADDRS names other addresses than 127.0.0.1,::1.
set -eu
mkdir -p bin/log
go test -race -c -o bin/suite-race.test ./test/suite

run() { # run DEVICE NAME
	ZRDMA_TEST_DEVICE=$1 go tool -modfile=tools/go.mod gotestsum --format testname --hide-summary=skipped \
		--jsonfile "bin/log/suite-$2.json" --raw-command -- bash -o pipefail -c \
		'bin/suite-race.test -test.v=test2json -test.skip "^(TestAllocs|TestInterop)" -test.timeout 3m | go tool test2json -t -p suite'
}
echo "soft: the verbs suite on soft:${SOFT_ADDRS:-127.0.0.1,::1}, and in memory"
run memory memory >bin/log/suite-memory.txt 2>&1 &
udp=0
run "soft:${SOFT_ADDRS:-127.0.0.1,::1}" soft || udp=1
memory=0
wait $! || memory=1
cat bin/log/suite-memory.txt
# Allocations are counted without the race detector.
ZRDMA_TEST_DEVICE=memory go test -count=1 -run TestAllocs ./test/suite
exit $((udp | memory))
