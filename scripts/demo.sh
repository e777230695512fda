#!/bin/sh
# The main job: a storage server and a client, two processes, move verified blocks
# without a copy, give some calls up half way, and tell how it went. It takes a
# kernel device of this machine, or else the software device, for which Go is
# enough: no RDMA library, no privilege, no VM (that is `make demo-vm`).
# BLOCKS=N changes how many.
set -eu
dir=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server" 2>/dev/null && wait "$server" || true; fi; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -n "$(ls /sys/class/infiniband 2>/dev/null)" ] && [ -z "${ZRDMA_DEVICE:-}" ]; then
	make -s deps
	go build -o bin/blockstore ./examples/blockstore
	ZRDMA_DEVICE=$(ls /sys/class/infiniband | head -n 1)
	netdev=$(ls "/sys/class/infiniband/$ZRDMA_DEVICE/device/net" 2>/dev/null | head -n 1 || true)
	[ -n "$netdev" ] || netdev=$(cat "/sys/class/infiniband/$ZRDMA_DEVICE/parent")
	addr=$(ip -4 -o addr show dev "$netdev" | awk '{sub("/.*", "", $4); print $4; exit}')
	client=$ZRDMA_DEVICE
else
	echo "demo: on the software device; a kernel RDMA device would be taken if there were one"
	CGO_ENABLED=0 go build -o bin/blockstore ./examples/blockstore
	addr=127.0.0.1
	ZRDMA_DEVICE=soft:$addr
	client=soft:127.0.0.2
fi
export ZRDMA_DEVICE

bin/blockstore serve --dir "$dir/blocks" --listen "$addr:0" >"$dir/log" 2>&1 &
server=$!
for i in $(seq 100); do
	grep -q '^serving' "$dir/log" && break
	kill -0 "$server" 2>/dev/null || { cat "$dir/log"; exit 1; }
	sleep 0.1
done
sed -n 's/^serving/demo: the server is serving/p' "$dir/log"
at=$(sed -n 's/^serving.* on \([^,]*\),.*/\1/p' "$dir/log")
ZRDMA_DEVICE=$client bin/blockstore load --server "$at" --blocks "${BLOCKS:-2000}" --server-pid "$server"
