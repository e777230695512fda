#!/bin/sh
# The soft tier: the verbs suite on the software device under the race detector,
# over UDP on loopback and, at the same time, on a network in memory; then the
# cases of reliable connections and of their manager on a network that loses,
# repeats, swaps and damages packets. It needs no privilege. SOFT_ADDRS names other
# addresses than 127.0.0.1,::1.
set -eu
udp="soft:${SOFT_ADDRS:-127.0.0.1,::1}"
reliable='^TestVerbs$/^([ABMQRSWX]|N0[12346]|N1|Z0[34])'
mkdir -p bin/log
go test -race -c -o bin/suite-race.test ./test/suite
go build -o bin/ ./cmd/zrdma ./examples/pingpong ./examples/rping
export ZRDMA_BIN_DIR="$PWD/bin"

run() { # run DEVICE NAME TESTS SKIP
	ZRDMA_TEST_DEVICE=$1 TESTS=$3 SKIP="$4" go tool -modfile=tools/go.mod gotestsum --format testname --hide-summary=skipped \
		--jsonfile "bin/log/suite-$2.json" --raw-command -- bash -o pipefail -c \
		'bin/suite-race.test -test.v=test2json -test.run "$TESTS" -test.skip "$SKIP" -test.timeout 3m |
			go tool test2json -t -p suite'
}
echo "soft: the verbs suite on $udp, and in memory"
run memory memory . '^(TestAllocs|TestInterop|TestSoftTools)' >bin/log/suite-memory.txt 2>&1 &
bad=0
run "$udp" soft . '^(TestAllocs|TestInterop)' || bad=1
wait $! || bad=1
cat bin/log/suite-memory.txt
echo "soft: reliable connections over a bad network"
run lossy lossy "$reliable" none || bad=1
# Allocations are counted without the race detector.
ZRDMA_TEST_DEVICE=memory go test -count=1 -run TestAllocs ./test/suite || bad=1
go test -count=1 -p 1 -run 'Allocs$|NoAllocation$|IsAllocated$|AllocatesNothing$' \
	./internal/roce/... ./mr ./qp ./rpc ./rdmanet || bad=1
# Without a fence memory changes under its owner, which the race detector reports.
go test -count=1 -run 'TestZombieWritesLate$' ./dpu || bad=1
exit $bad
