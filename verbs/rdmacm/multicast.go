package rdmacm

import (
	"net/netip"

	"github.com/zrdma/zrdma/internal/bridge"
)

// JoinFlags say what a member of a group does.
//
// Source: enum rdma_cm_mc_join_flags.
type JoinFlags uint32

// Values of JoinFlags.
const (
	JoinFullMember         JoinFlags = 0
	JoinSendOnlyFullMember JoinFlags = 1
)

// JoinMulticast joins a group: EventMulticastJoin, with the address handle's
// attributes and the Q_Key, or EventMulticastError follows. The ID's queue pair
// is attached to the group by it. Leave the group before the queue pair closes.
// rxe refuses IPv6 groups with errno 524, which is errors.ErrUnsupported.
//
// Verb: rdma_join_multicast(3).
func (x *ID) JoinMulticast(a netip.AddrPort) error {
	return x.join("rdma_join_multicast", a, 0, false)
}

// JoinMulticastEx is JoinMulticast with the kind of membership.
//
// Verb: rdma_join_multicast_ex(3).
func (x *ID) JoinMulticastEx(a netip.AddrPort, flags JoinFlags) error {
	return x.join("rdma_join_multicast_ex", a, flags, true)
}

func (x *ID) join(verb string, a netip.AddrPort, flags JoinFlags, ex bool) error {
	if !a.Addr().IsValid() || !a.Addr().IsMulticast() && !a.Addr().IsUnspecified() {
		return invalid(verb, "not a multicast address")
	}
	return x.call(verb, func() error {
		cookie := bridge.Cookie()
		x.mu.Lock()
		if x.groups == nil {
			x.groups = map[uint64]netip.AddrPort{}
		}
		x.groups[cookie] = a
		x.mu.Unlock()
		err := x.p.JoinMulticast(a, cookie, uint32(flags), ex)
		if err != nil {
			x.mu.Lock()
			delete(x.groups, cookie)
			x.mu.Unlock()
		}
		return err
	})
}

func (x *ID) group(cookie uint64) netip.AddrPort {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.groups[cookie]
}

// LeaveMulticast leaves a group, named exactly as it was joined, and detaches the
// queue pair from it.
//
// Verb: rdma_leave_multicast(3).
func (x *ID) LeaveMulticast(a netip.AddrPort) error {
	return x.call("rdma_leave_multicast", func() error {
		if err := x.p.LeaveMulticast(a); err != nil {
			return err
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		for c, g := range x.groups {
			if g == a {
				delete(x.groups, c)
				break
			}
		}
		return nil
	})
}
