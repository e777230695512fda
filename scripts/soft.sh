#!/bin/sh
# The soft tier: the verbs suite on the software device under the race detector,
# over UDP on loopback and on a network in memory. It needs no privilege.
set -eu
mkdir -p bin/log
go test -race -c -o bin/suite-race.test ./test/suite
for dev in soft:127.0.0.1,::1 memory; do
	log=bin/log/suite-${dev%%:*}.json
	echo "soft: the verbs suite on $dev"
	ZRDMA_TEST_DEVICE=$dev go tool -modfile=tools/go.mod gotestsum --format testname --jsonfile "$log" --raw-command -- \
		bash -o pipefail -c 'bin/suite-race.test -test.v=test2json -test.timeout 2m | go tool test2json -t -p suite'
done
# Allocations are counted without the race detector.
ZRDMA_TEST_DEVICE=memory go test -count=1 -run TestAllocs ./test/suite
