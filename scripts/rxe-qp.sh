#!/bin/sh
# In a VM: packages mr, qp and rdmanet on rxe0. Of random work 15 seeds, of the race between
# a writing peer and Revoke 50 rounds for each fence (docs/ownership.md has a run of
# 1000). In the end the device must hold nothing.
set -eu
ZRDMA_TEST_DEVICE=rxe0 bin/qp.test -test.timeout 150s -qp.seeds "${SEEDS:-15}" \
	-test.run '^Test(Messages|OneSided|DialListen|Exchange|Datagram|SharedReceive|GrantOutlives|RandomWork)$'
ZRDMA_DEVICE=rxe0 bin/mr.test -test.timeout 150s -mr.rounds "${ROUNDS:-50}" \
	-test.run '^Test(NothingMovesAfterRevoke|GrantShowsNothingElse|FileOverTheWire|CacheOverTheWire)$'
ZRDMA_TEST_DEVICE=rxe0 bin/rdmanet.test -test.timeout 240s -test.run '^Test' \
	-test.skip '^Test(Partition|PartitionHeals|DeviceRemoved|BadNetwork|Config|NoAllocs)$' # of the software device
left=$(rdma resource show rxe0)
echo "$left"
# rxe keeps an internal domain, queue and queue pair (GSI) for the connection manager.
case $left in *"pd 1 cq 1 qp 1 cm_id 0 mr 0"*) ;; *) echo "rxe: something is left" >&2; exit 1 ;; esac
