package cm

import (
	"net/netip"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/provider"
)

// group is a multicast group that an id has joined.
type group struct {
	addr     netip.AddrPort
	attached bool // the queue pair is
}

const (
	mcastQPN  = 0xffffff
	sendOnly  = 1
	mcastHops = 1
)

// JoinMulticast attaches the queue pair to the group. Nobody else is told: the
// link decides where packets to a group go. IPv6 groups are refused with the
// kernel's own errno, as on rxe.
func (x *id) JoinMulticast(a netip.AddrPort, cookie uint64, flags uint32, ex bool) error {
	ip := plain(a.Addr())
	if x.ps != provider.PSUDP || !ip.IsValid() || flags > sendOnly {
		return errInval
	}
	if !ip.Is4() {
		return provider.ENOTSUPP
	}
	return x.call(func(b *batch) error {
		var path provider.AHAttr
		var err error = errInval
		x.m.locked(b, func(time.Time) {
			if x.device && !x.closed {
				err = nil
				path = x.m.path(&conn{local: plain(x.local.Addr()), peer: ip, tclass: x.tos})
			}
		})
		if err != nil {
			return err
		}
		path.GRH.HopLimit = mcastHops
		ev := provider.CMEvent{
			Type: provider.CMEventMulticastJoin, Group: cookie,
			UD: provider.CMUDParam{AH: path, QPN: mcastQPN, QKey: udQKey},
		}
		g := group{addr: a}
		if x.qp != nil && (!ex || flags != sendOnly) {
			if e := x.qp.AttachMcast(provider.GIDFromAddr(ip), 0); e != nil {
				n, ok := e.(syscall.Errno)
				if !ok {
					n = errInval
				}
				ev = provider.CMEvent{Type: provider.CMEventMulticastError, Group: cookie, Status: -int32(n)}
			} else {
				g.attached = true
			}
		}
		x.groups = append(x.groups, g)
		x.m.locked(b, func(time.Time) { x.m.push(x, ev) })
		return nil
	})
}

// LeaveMulticast detaches the queue pair from the group.
func (x *id) LeaveMulticast(a netip.AddrPort) error {
	return x.call(func(*batch) error {
		for i, g := range x.groups {
			if g.addr != a {
				continue
			}
			if g.attached && x.qp != nil {
				if err := x.qp.DetachMcast(provider.GIDFromAddr(plain(a.Addr())), 0); err != nil {
					return err
				}
			}
			x.groups = append(x.groups[:i:i], x.groups[i+1:]...)
			return nil
		}
		return syscall.EADDRNOTAVAIL
	})
}
