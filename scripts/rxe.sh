#!/bin/sh
# The VM tier: the verbs suite on the kernel's rdma_rxe, then again as a build
# that checks pointers and memory, then the interop runs between two VMs: with
# the C programs, and of the software device with rxe.
# KERNEL=6.12 takes Debian's backports kernel. ZRDMA_DEVICE=NAME runs the suite
# on a device of this machine instead.
set -eu
kernel=${KERNEL:-6.1}
mkdir -p bin/log
gts() { go tool -modfile=tools/go.mod gotestsum --format testname "$@"; }
export ZRDMA_BIN_DIR="$PWD/bin"

if [ -n "${ZRDMA_DEVICE:-}" ]; then
	ZRDMA_TEST_DEVICE=$ZRDMA_DEVICE exec bin/suite.test -test.v
fi
export ZRDMA_TEST_DEVICE=rxe0

echo "rxe: the verbs suite on kernel $kernel"
gts --jsonfile "bin/log/suite-$kernel.json" --raw-command -- bash -o pipefail -c \
	"bin/softroce run -kernel-version $kernel -fail-on-warn -timeout 20m -dmesg bin/log/dmesg-$kernel.txt -- \
		bin/suite.test -test.v=test2json -test.timeout 19m | go tool test2json -t -p suite"
[ "$kernel" = 6.1 ] || exit 0

echo "rxe: what package dpu finds out about rxe"
bin/softroce run -fail-on-warn -timeout 3m -- env ZRDMA_DEVICE=rxe0 bin/dpu.test -test.run '^TestRXECapabilities$' -test.v

echo "rxe: packages mr, qp and rdmanet"
bin/softroce run -fail-on-warn -timeout 10m -- sh scripts/rxe-qp.sh

echo "rxe: the C door with checkptr and address sanitizer, ten times under GOGC=1"
bin/softroce run -fail-on-warn -timeout 15m -- env GOGC=1 bin/suite-checkptr.test -test.run "$(cat scripts/door.cases)" -test.count 10 -test.timeout 14m
bin/softroce run -fail-on-warn -timeout 15m -- env ASAN_OPTIONS=detect_leaks=0 bin/suite-asan.test -test.run "$(cat scripts/door.cases)" -test.timeout 14m

echo "rxe: zrdma compare between two VMs, through an agent on a third, and with a device that goes away"
bin/softroce run -fail-on-warn -hosts 2 -timeout 4m -script test/softroce/scripts/compare.txt
bin/softroce run -fail-on-warn -hosts 3 -timeout 4m -script test/softroce/scripts/compare-dpu.txt
bin/softroce run -timeout 4m -script test/softroce/scripts/compare-gone.txt

echo "rxe: the harness itself; C peers, and the software device against rxe, in two VMs"
# `make dpu` has the package that needs arm64 VMs.
SOFTROCE_VM_TESTS=1 gts --rerun-fails=1 --rerun-fails-max-failures=3 \
	--packages "$(go list ./test/softroce/... | grep -v '/softroce/dpu$' | tr '\n' ' ')" -- -count=1 -p 1 -timeout 25m
