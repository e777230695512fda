package roce

import (
	"slices"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// Groups reach the queue pairs of this device only: a socket bound to one
// address receives no multicast.

// AttachMcast makes a UD queue pair a member of a group.
//
// Verb: ibv_attach_mcast(3).
func (q *qp) AttachMcast(g provider.GID, _ uint16) error {
	n, a := q.n, g.Addr()
	n.mu.Lock()
	defer n.mu.Unlock()
	members := n.groups[a]
	switch {
	case q.typ != provider.QPTUD || !a.IsMulticast() || q.closed:
		return syscall.EINVAL
	case slices.Contains(members, q):
		return nil
	case members == nil && len(n.groups) >= maxMcastGrp, len(members) >= maxMcastQP:
		return syscall.ENOMEM
	}
	n.groups[a] = append(members, q)
	q.groups++
	return nil
}

// DetachMcast undoes AttachMcast.
//
// Verb: ibv_detach_mcast(3).
func (q *qp) DetachMcast(g provider.GID, _ uint16) error {
	n, a := q.n, g.Addr()
	n.mu.Lock()
	defer n.mu.Unlock()
	members := n.groups[a]
	i := slices.Index(members, q)
	if i < 0 {
		return syscall.EINVAL
	}
	if members = slices.Delete(members, i, i+1); len(members) == 0 {
		delete(n.groups, a)
	} else {
		n.groups[a] = members
	}
	q.groups--
	return nil
}

// toGroup hands a packet to the members of a group.
func (n *node) toGroup(w path, p *wire.Packet, segs [][]byte, size int) {
	b := n.mcast[:0]
	for _, s := range segs {
		b = append(b, s...)
	}
	n.mcast = b
	p.Payload = b[:size]
	src, dst := n.links[w.link].Addr(), w.dst.WithZone("")
	for _, q := range n.groups[dst] {
		q.eng.(*udEngine).receive(src, dst, p)
	}
	p.Payload = nil
}
