package rdmacm

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/verbs"
)

// endpoint is what an ID made by CreateEP or GetRequest owns beside itself.
type endpoint struct {
	ch  *EventChannel   // that only this ID uses; nil for a passive one of the provider's
	qp  *verbs.QP       // or nil
	pd  *verbs.PD       // passive: for the queue pairs of requests
	cfg *verbs.QPConfig // passive: for requests; nil for none
	m   provider.CM     // passive: its manager
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
	return CreateEPOn(ctx, nil, ai, pd, cfg)
}

// CreateEPOn is CreateEP with the connection manager that serves dev, as with
// CreateEventChannelOn.
//
// Verb: rdma_create_ep(3), rdma_destroy_ep(3).
func CreateEPOn(ctx context.Context, dev *verbs.Context, ai AddrInfo, pd *verbs.PD, cfg *verbs.QPConfig) (*ID, error) {
	if ai.PortSpace == 0 {
		ai.PortSpace = PSTCP
	}
	if ai.Flags&RAIPassive != 0 {
		return passiveEP(dev, ai, pd, cfg)
	}
	x, err := ownID(dev, ai.PortSpace)
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

func passiveEP(dev *verbs.Context, ai AddrInfo, pd *verbs.PD, cfg *verbs.QPConfig) (*ID, error) {
	const verb = "rdma_create_ep"
	m, err := managerOf(verb, dev)
	if err != nil {
		return nil, err
	}
	p, ok := m.(provider.CMEndpoints)
	if !ok {
		return boundEP(dev, ai, pd, cfg)
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
	x.ep = &endpoint{pd: pd, cfg: cfg, m: m}
	return x, nil
}

// boundEP is a passive endpoint of a manager that has none of its own kind.
func boundEP(dev *verbs.Context, ai AddrInfo, pd *verbs.PD, cfg *verbs.QPConfig) (*ID, error) {
	x, err := ownID(dev, ai.PortSpace)
	if err != nil {
		return nil, err
	}
	if err := x.BindAddr(ai.Src); err != nil {
		x.Close()
		return nil, err
	}
	x.ep.pd, x.ep.cfg, x.ep.m = pd, cfg, x.ep.ch.m
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
	if x.ep == nil || x.ep.m == nil {
		return nil, nil, invalid(verb, "the ID is no passive endpoint of CreateEP")
	}
	if x.h.Closed() {
		return nil, nil, closed(verb)
	}
	n, ev, err := x.request(ctx)
	if err != nil {
		return nil, nil, err
	}
	if x.ep.cfg != nil {
		if n.ep.qp, err = n.CreateQP(x.ep.pd, *x.ep.cfg); err != nil {
			n.Close()
			return nil, nil, err
		}
	}
	return n, ev, nil
}

// request takes a connection request; its ID has a channel of its own.
func (x *ID) request(ctx context.Context) (*ID, *Event, error) {
	const verb = "rdma_get_request"
	e, ok := x.p.(provider.CMEndpoint)
	if !ok {
		ev, err := x.wait(ctx, EventConnectRequest, StepAccept)
		var c *ConnectError
		if errors.As(err, &c) {
			err = c.Cause
		}
		if err != nil {
			return nil, nil, err
		}
		return ev.ID, ev, ev.ID.ownChannel(x.ep.ch)
	}
	ch, err := newChannel(x.ep.m, nil)
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
	ev := newEvent(&pe, n)
	ev.Listener = x
	return n, ev, nil
}

// ownChannel moves the ID from a channel to one of its own; when that fails the
// ID is closed.
func (x *ID) ownChannel(from *EventChannel) error {
	ch, err := newChannel(from.m, from.dev)
	if err != nil {
		x.Close()
		return err
	}
	if err := x.MigrateID(ch); err != nil {
		ch.Close()
		x.Close()
		return err
	}
	x.ep = &endpoint{ch: ch}
	return nil
}

// QP is the queue pair of an ID made by CreateEP or GetRequest, or nil.
func (x *ID) QP() *verbs.QP {
	if x.ep == nil {
		return nil
	}
	return x.ep.qp
}

// ownID makes an ID with a channel of its own, which Close takes along.
func ownID(dev *verbs.Context, ps PortSpace) (*ID, error) {
	ch, err := channelOn(dev)
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
