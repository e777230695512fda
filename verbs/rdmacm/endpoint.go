package rdmacm

import (
	"context"
	"net/netip"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/verbs"
)

// endpoint is what an ID made by CreateEP or GetRequest owns beside itself.
type endpoint struct {
	ch  *EventChannel   // that only this ID uses; nil for a passive one
	qp  *verbs.QP       // or nil
	pd  *verbs.PD       // for the queue pairs of requests
	cfg *verbs.QPConfig // passive: for requests; nil for none
}

const resolveTimeout = 2 * time.Second

// CreateEP makes an ID from a result of GetAddrInfo. A passive one (RAIPassive) is
// bound, ready for Listen and GetRequest. An active one has its route resolved
// and, with cfg, its queue pair created: ready for Connect, whose events Wait takes.
//
// librdmacm's own active endpoint waits on a thread that nothing can interrupt;
// this one is built from the asynchronous calls, and ends with ctx.
//
// Verb: rdma_create_ep(3), rdma_destroy_ep(3).
func CreateEP(ctx context.Context, ai AddrInfo, pd *verbs.PD, cfg *verbs.QPConfig) (*ID, error) {
	if ai.PortSpace == 0 {
		ai.PortSpace = PSTCP
	}
	if ai.Flags&RAIPassive != 0 {
		return passiveEP(ai, pd, cfg)
	}
	x, err := ownID(ai.PortSpace)
	if err != nil {
		return nil, err
	}
	if err := x.route(ctx, ai.Src, ai.Dst, resolveTimeout, resolveTimeout, nil); err != nil {
		x.Close()
		return nil, err
	}
	if cfg != nil {
		if x.ep.qp, err = x.CreateQP(pd, *cfg); err != nil {
			err = &ConnectError{Step: StepQP, Peer: ai.Dst, Cause: err}
			x.Close()
			return nil, err
		}
	}
	return x, nil
}

func passiveEP(ai AddrInfo, pd *verbs.PD, cfg *verbs.QPConfig) (*ID, error) {
	const verb = "rdma_create_ep"
	m, err := manager(verb)
	if err != nil {
		return nil, err
	}
	p, ok := m.(provider.CMEndpoints)
	if !ok {
		return nil, cmErr(verb, syscall.EOPNOTSUPP)
	}
	if ai.QPType == 0 {
		ai.QPType = verbs.QPTRC
		if ai.PortSpace == PSUDP {
			ai.QPType = verbs.QPTUD
		}
	}
	cookie := bridge.Cookie()
	dom, _ := bridge.Inner(pd).(provider.PD)
	e, err := p.CreatePassiveEP(cookie, &ai, dom)
	if err != nil {
		return nil, cmErr(verb, err)
	}
	x, err := newID(e, cookie, nil)
	if err != nil {
		return nil, err
	}
	x.ep = &endpoint{pd: pd, cfg: cfg}
	return x, nil
}

// GetRequest waits for a connection request on a passive endpoint that listens,
// in the network poller. The ID is the caller's, with a channel and, where the
// endpoint was created with a configuration for it, a queue pair that go with it:
// Accept and Wait(EventEstablished), Reject, or Close.
//
// Verb: rdma_get_request(3).
func (x *ID) GetRequest(ctx context.Context) (*ID, *Event, error) {
	const verb = "rdma_get_request"
	e, ok := x.p.(provider.CMEndpoint)
	if !ok || x.ep == nil {
		return nil, nil, invalid(verb, "the ID is no passive endpoint of CreateEP")
	}
	if x.h.Closed() {
		return nil, nil, closed(verb)
	}
	m, err := manager(verb)
	if err != nil {
		return nil, nil, err
	}
	ch, err := newChannel(m)
	if err != nil {
		return nil, nil, err
	}
	pe, err := e.GetRequest(ctx, ch.p, bridge.Cookie())
	if err != nil {
		ch.Close()
		return nil, nil, cmErr(verb, err)
	}
	n, err := ch.adopt(pe.New, pe.NewCookie)
	if err != nil {
		ch.Close()
		return nil, nil, err
	}
	n.ep = &endpoint{ch: ch}
	if x.ep.cfg != nil {
		if n.ep.qp, err = n.CreateQP(x.ep.pd, *x.ep.cfg); err != nil {
			n.Close()
			return nil, nil, err
		}
	}
	ev := newEvent(&pe, n)
	ev.Listener = x
	return n, ev, nil
}

// QP is the queue pair of an ID made by CreateEP or GetRequest, or nil.
func (x *ID) QP() *verbs.QP {
	if x.ep == nil {
		return nil
	}
	return x.ep.qp
}

// ownID makes an ID with a channel of its own, which Close takes along.
func ownID(ps PortSpace) (*ID, error) {
	ch, err := CreateEventChannel()
	if err != nil {
		return nil, err
	}
	x, err := ch.CreateID(ps)
	if err != nil {
		ch.Close()
		return nil, err
	}
	x.ep = &endpoint{ch: ch}
	return x, nil
}

// route resolves the address and the route; between is called between the two.
func (x *ID) route(ctx context.Context, src, dst netip.AddrPort, addrTime, routeTime time.Duration, between func() error) error {
	if err := x.ResolveAddr(src, dst, addrTime); err != nil {
		return &ConnectError{Step: StepAddress, Peer: dst, Cause: err}
	}
	if _, err := x.wait(ctx, EventAddrResolved, StepAddress); err != nil {
		return withPeer(err, dst)
	}
	if between != nil {
		if err := between(); err != nil {
			return &ConnectError{Step: StepAddress, Peer: dst, Cause: err}
		}
	}
	if err := x.ResolveRoute(routeTime); err != nil {
		return &ConnectError{Step: StepRoute, Peer: dst, Cause: err}
	}
	_, err := x.wait(ctx, EventRouteResolved, StepRoute)
	return withPeer(err, dst)
}

// withPeer names the peer as the caller did: an ID without a device has no address.
func withPeer(err error, peer netip.AddrPort) error {
	if c, ok := err.(*ConnectError); ok {
		c.Peer = peer
	}
	return err
}
