#!/bin/sh
# Everything of package rpc at once, under the race detector, for MINUTES (10):
# simulations with new seeds, storms of cancellations, hostile clients, and a block
# store whose server is killed under load. Each of them ends with nothing left:
# objects, buffers, credits, budgets, goroutines.
set -eu
end=$(($(date +%s) + ${MINUTES:-10} * 60))
dir=$(mktemp -d)
trap 'kill $pids 2>/dev/null || true; rm -rf "$dir"' EXIT
pids=
go test -race -c -o "$dir/rpc.test" ./rpc
go test -race -c -o "$dir/blockstore.test" ./examples/blockstore

again() { # again NAME COMMAND...: until the time is over; SEED counts in the arguments
	name=$1 n=0
	shift
	while [ "$(date +%s)" -lt "$end" ]; do
		n=$((n + 1))
		seed=$(($(date +%s) + n * 1000))
		if ! "$@" "-rpc.seed=$seed" >"$dir/$name.log" 2>&1; then
			echo "soak: $name failed in round $n, seed $seed:"
			tail -n 100 "$dir/$name.log"
			return 1
		fi
	done
	echo "soak: $name: $n rounds, all well"
}
kills() { # it knows no seeds
	"$dir/blockstore.test" -test.run 'TestKill|TestStore' -test.timeout 5m
}
again simulation "$dir/rpc.test" -test.run TestSimulation -rpc.seeds 25 -test.timeout 10m & pids="$pids $!"
again storm "$dir/rpc.test" -test.run 'TestStorm$' -rpc.storm 5000 -test.timeout 10m & pids="$pids $!"
again hostile "$dir/rpc.test" -test.run 'TestHostile|TestFlood|TestForeign' -rpc.seeds 20 -test.timeout 10m & pids="$pids $!"
again blockstore kills & pids="$pids $!"
bad=0
for p in $pids; do
	wait "$p" || bad=1
done
exit $bad
