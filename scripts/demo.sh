#!/bin/sh
# The first demo: both ends of a verified RC ping-pong on one device. It takes a
# kernel device of this machine, or else the software device, for which Go is
# enough: no RDMA library, no privilege, no VM (that is `make demo-vm`).
set -eu
set -- ping --loopback --count 200 --size 4096
if [ -n "$(ls /sys/class/infiniband 2>/dev/null)" ]; then
	make -s bin
	exec bin/zrdma "$@"
fi
echo "demo: no kernel RDMA device here: on the software device"
CGO_ENABLED=0 go build -o bin/zrdma-soft ./cmd/zrdma
exec env ZRDMA_DEVICE="${ZRDMA_DEVICE:-soft:127.0.0.1}" bin/zrdma-soft "$@"
