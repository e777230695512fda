#!/bin/sh
# zrdma bench beside perftest, in one VM on rxe0, in alternating rounds: C, Go, C,
# Go, ... Run it by: bin/softroce run -- sh test/softroce/scripts/bench-perftest.sh
# Prints one line a run: what, who, value; latency in us (mean of half a round
# trip), bandwidth in MiB/s. ROUNDS=N.
set -u
zrdma=${ZRDMA:-bin/zrdma}
rounds=${ROUNDS:-3}
listens() { # until the port is listened on, or 10 s are over
	for _ in $(seq 200); do
		cat /proc/net/tcp /proc/net/tcp6 | grep -qi ":$(printf %04x "$1") [0-9a-f]*:0000 0A" && return
		sleep 0.05
	done
}
c() { # c WHAT COLUMN TOOL ARGS...
	what=$1 col=$2
	shift 2
	timeout 60 "$@" >/dev/null 2>&1 &
	listens 18515
	v=$(timeout 60 "$@" 127.0.0.1 2>/dev/null | awk -v c="$col" '$1 ~ /^[0-9]+$/ && NF >= c { print $c }' | tail -1)
	wait $!
	echo "$what C ${v:-failed}"
}
go() { # go WHAT FIELD ARGS...
	what=$1 field=$2
	shift 2
	v=$(timeout 60 "$zrdma" bench 127.0.0.1 -d rxe0 --warmup 0 --format csv "$@" | awk -F, -v f="$field" '
		NR == 1 { for (i = 1; i <= NF; i++) n[$i] = i }
		NR == 2 { print f == "bytes_per_second" ? $n[f] / 1048576 : $n[f] }')
	echo "$what Go ${v:-failed}"
}
"$zrdma" bench --serve -d rxe0 >/dev/null 2>&1 &
server=$!
listens 18517
gid=1
for _ in $(seq "$rounds"); do
	c "latency 64 B polling" 6 ib_send_lat -d rxe0 -x $gid -F -s 64 -n 2000
	go "latency 64 B polling" mean_us --op send --mode latency --sizes 64 -n 2000 --poll
	c "latency 64 B events" 6 ib_send_lat -d rxe0 -x $gid -F -s 64 -n 1000 -e
	go "latency 64 B events" mean_us --op send --mode latency --sizes 64 -n 1000
	c "write 4 KiB" 4 ib_write_bw -d rxe0 -x $gid -F -s 4096 -n 4000
	go "write 4 KiB" bytes_per_second --op write --sizes 4k -n 4000 --poll
	c "write 64 KiB" 4 ib_write_bw -d rxe0 -x $gid -F -s 65536 -n 400
	go "write 64 KiB" bytes_per_second --op write --sizes 64k -n 400 --poll
	c "read 64 KiB" 4 ib_read_bw -d rxe0 -x $gid -F -s 65536 -n 400
	go "read 64 KiB" bytes_per_second --op read --sizes 64k -n 400 --poll
done
kill $server
