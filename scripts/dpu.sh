#!/bin/sh
# A host, a DPU (arm64, the DMI of a BlueField) and a storage server: three VMs on
# one network. KERNEL=6.12 takes Debian's backports kernel.
set -eu
export ZRDMA_BIN_DIR="$PWD/bin" SOFTROCE_VM_TESTS=1
exec go tool -modfile=tools/go.mod gotestsum --format testname -- -count=1 -v -timeout 15m ./test/softroce/dpu
