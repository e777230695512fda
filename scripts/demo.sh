#!/bin/sh
# The first demo: both ends of a verified RC ping-pong on one device. It takes a
# device of this machine, or else boots a VM that has the kernel's Soft-RoCE.
set -eu
set -- bin/zrdma ping --loopback --count 200 --size 4096
if [ -n "$(ls /sys/class/infiniband 2>/dev/null)" ]; then
	exec "$@"
fi
echo "demo: no RDMA device here; booting a VM with rdma_rxe"
exec bin/softroce run -- "$@"
