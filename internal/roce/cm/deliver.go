package cm

import (
	"net/netip"

	"github.com/zrdma/zrdma/internal/provider"
)

// deliver makes an event of a notice, or a step where a queue pair is to be
// moved first. It is called with mu held.
func (m *Manager) deliver(b *batch, n *notice) {
	if n.kind == noteRequest {
		m.offer(n)
		return
	}
	x, ok := n.c.owner.(*id)
	if !ok {
		return
	}
	ev := provider.CMEvent{Status: n.status, Conn: provider.CMConnParam{
		Private: n.private, ResponderResources: n.respRes, InitiatorDepth: n.initDep,
		FlowControl: n.flow, SRQ: n.srq, RetryCount: n.retry, RNRRetryCount: n.rnr, QPN: n.qpn,
	}}
	c := n.c
	switch n.kind {
	case noteReply:
		if x.hasQP {
			b.steps = append(b.steps, func() { x.complete(c, ev) })
			return
		}
		ev.Type = provider.CMEventConnectResponse
	case noteRejected:
		ev.Type = provider.CMEventRejected
		if x.hasQP {
			b.steps = append(b.steps, func() { x.fail(ev) })
			return
		}
	case noteEstablished:
		ev.Type = provider.CMEventEstablished
	case noteUnreachable:
		ev.Type = provider.CMEventUnreachable
	case noteDisconnected:
		ev.Type = provider.CMEventDisconnected
	case noteTimewaitExit:
		ev.Type = provider.CMEventTimewaitExit
	case noteSidrReply:
		ev.Type = provider.CMEventUnreachable
		if n.status == sidrOK {
			ev.Type = provider.CMEventEstablished
			ev.Conn.QPN = 0
			ev.UD = provider.CMUDParam{AH: m.path(c), QPN: n.qpn, QKey: n.qkey}
		}
	}
	m.push(x, ev)
}

// offer makes an id of a request. Its cookie comes when it is taken.
func (m *Manager) offer(n *notice) {
	l := n.listener.owner.(*id)
	dst, _ := own(m.port.Addrs(), n.from.dst)
	src := n.from.src
	if dst.Zone() != "" {
		src = netip.AddrPortFrom(src.Addr().WithZone(dst.Zone()), src.Port())
	}
	x := &id{
		m: m, ps: l.ps, ch: l.ch, st: idRequest, device: true, conn: n.c,
		local: netip.AddrPortFrom(dst, l.local.Port()), peer: src,
		tos: l.tos, ack: l.ack, ackSet: l.ackSet,
		reqResp: n.respRes, reqInit: n.initDep,
	}
	n.c.owner = x
	m.ids[x] = struct{}{}
	l.ch.put(event{x: l, made: x, ev: provider.CMEvent{
		Type: provider.CMEventConnectRequest,
		Conn: provider.CMConnParam{
			Private: n.private, ResponderResources: n.respRes, InitiatorDepth: n.initDep,
			FlowControl: n.flow, SRQ: n.srq, RetryCount: n.retry, RNRRetryCount: n.rnr, QPN: n.qpn,
		},
	}})
}

// push queues an event of x. One that nobody knows yet has none: using it fails.
func (m *Manager) push(x *id, ev provider.CMEvent) {
	if x.known && !x.closed {
		x.ch.put(event{x: x, ev: ev})
	}
}

// path is how the peer of c is reached.
func (m *Manager) path(c *conn) provider.AHAttr {
	return provider.AHAttr{
		GRH: provider.GlobalRoute{
			DGID: provider.GIDFromAddr(c.peer), FlowLabel: c.flowLabel, SGIDIndex: gidIndex(m.port.Addrs(), c.local),
			HopLimit: hopLimit, TrafficClass: c.tclass,
		},
		IsGlobal: true, PortNum: 1,
	}
}
