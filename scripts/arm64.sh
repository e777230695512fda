#!/bin/sh
# Builds programs and tests for arm64 into bin/arm64, with cgo, against Debian's
# arm64 libraries: the folder that arm64 VMs have as their userland.
set -eu
sysroot=$(bin/softroce userland -arch arm64)
mkdir -p bin/arm64
export GOARCH=arm64 CGO_ENABLED=1 CC="aarch64-linux-gnu-gcc --sysroot=$sysroot"
go build -o bin/arm64/ ./cmd/... ./examples/...
for p in test/suite internal/ibv dpu; do
	go test -c -o "bin/arm64/$(basename $p).test" "./$p"
done
