package rdmacm

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
	"weak"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/verbs"
)

// ID is a communication identifier: what a socket is to TCP.
type ID struct {
	h      handle.Handle
	p      provider.CMID
	cookie uint64
	ps     PortSpace

	mu     sync.Mutex
	ch     *EventChannel             // guarded by mu; nil for a passive endpoint
	qp     weak.Pointer[verbs.QP]    // guarded by mu
	srq    weak.Pointer[verbs.SRQ]   // guarded by mu
	pd     *verbs.PD                 // guarded by mu: the manager's own, wrapped
	groups map[uint64]netip.AddrPort // guarded by mu: joined, by cookie

	ep *endpoint // of an ID made by CreateEP or GetRequest
}

func inUse(what string, n int, of string) error {
	return fmt.Errorf("rdmacm: %s: %w: %d open %s(s)", what, ErrInUse, n, of)
}

// CreateID makes an ID whose events arrive on ch.
//
// Verb: rdma_create_id(3).
func (ch *EventChannel) CreateID(ps PortSpace) (*ID, error) {
	if err := ch.h.Enter(); err != nil {
		return nil, closed("rdma_create_id")
	}
	defer ch.h.Exit()
	cookie := bridge.Cookie()
	p, err := ch.m.CreateID(ch.p, cookie, ps)
	if err != nil {
		return nil, cmErr("rdma_create_id", err)
	}
	return newID(p, cookie, ch)
}

// adopt wraps the id of a connection request.
func (ch *EventChannel) adopt(p provider.CMID, cookie uint64) (*ID, error) {
	if err := ch.h.Enter(); err != nil {
		p.Close()
		return nil, closed("rdma_get_cm_event")
	}
	defer ch.h.Exit()
	return newID(p, cookie, ch)
}

func newID(p provider.CMID, cookie uint64, ch *EventChannel) (*ID, error) {
	x := &ID{p: p, cookie: cookie, ch: ch, ps: p.PortSpace()}
	if err := x.h.Init("rdmacm.ID"); err != nil {
		p.Close()
		return nil, err
	}
	if ch != nil {
		ch.ids.Add(1)
	}
	live.Lock()
	if live.m == nil {
		live.m = map[uint64]weak.Pointer[ID]{}
	}
	live.m[cookie] = weak.Make(x)
	live.Unlock()
	handle.Watch(x, &x.h)
	return x, nil
}

func (x *ID) call(verb string, f func() error) error {
	if err := x.h.Enter(); err != nil {
		return closed(verb)
	}
	defer x.h.Exit()
	return cmErr(verb, f())
}

func (x *ID) datagram() bool { return x.ps == PSUDP || x.ps == PSIPoIB }

// PortSpace is the port space.
func (x *ID) PortSpace() PortSpace { return x.ps }

// Channel is the channel that the ID's events arrive on.
func (x *ID) Channel() *EventChannel {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.ch
}

// Context is the device the ID is bound to, nil before it is. It is shared by
// all IDs of the device and stays open until the process ends. On a channel made
// on a software device it is the context that the channel was made on.
func (x *ID) Context() *verbs.Context {
	if x.h.Enter() != nil {
		return nil
	}
	defer x.h.Exit()
	p := x.p.Context()
	if p == nil {
		return nil
	}
	// A software device has one manager for all contexts of it, so that what the
	// user makes from the channel's can be used.
	if ch := x.Channel(); ch != nil && ch.dev != nil && ch.dev.IsSoft() {
		return ch.dev
	}
	return bridge.Context(p).(*verbs.Context)
}

// PortNum is the port of the device, 0 before the ID is bound.
func (x *ID) PortNum() uint8 {
	if x.h.Enter() != nil {
		return 0
	}
	defer x.h.Exit()
	return x.p.Port()
}

// LocalAddr is the address the ID is bound to; a link-local one has its zone.
//
// Verb: rdma_get_local_addr(3), rdma_get_src_port(3).
func (x *ID) LocalAddr() netip.AddrPort {
	if x.h.Enter() != nil {
		return netip.AddrPort{}
	}
	defer x.h.Exit()
	return x.zoned(x.p.LocalAddr())
}

// PeerAddr is the address of the other side.
//
// Verb: rdma_get_peer_addr(3), rdma_get_dst_port(3).
func (x *ID) PeerAddr() netip.AddrPort {
	if x.h.Enter() != nil {
		return netip.AddrPort{}
	}
	defer x.h.Exit()
	return x.zoned(x.p.PeerAddr())
}

// zoned adds the zone that the kernel does not report for the passive side: that
// of the interface whose GID the local address is.
func (x *ID) zoned(a netip.AddrPort) netip.AddrPort {
	ip := a.Addr()
	if !ip.Is6() || !ip.IsLinkLocalUnicast() || ip.Zone() != "" {
		return a
	}
	p := x.p.Context()
	if p == nil {
		return a
	}
	g, err := bridge.Context(p).(*verbs.Context).SelectGID(x.p.Port(), x.p.LocalAddr().Addr())
	if err != nil {
		return a
	}
	ifi, err := net.InterfaceByIndex(int(g.Ifindex))
	if err != nil {
		return a
	}
	return netip.AddrPortFrom(ip.WithZone(ifi.Name), a.Port())
}

// BindAddr binds the ID to a local address. Port 0 chooses one; an unspecified
// address binds to no device.
//
// Verb: rdma_bind_addr(3).
func (x *ID) BindAddr(a netip.AddrPort) error {
	return x.call("rdma_bind_addr", func() error { return x.p.Bind(a) })
}

// ResolveAddr starts finding the device that leads to dst: EventAddrResolved or
// EventAddrError follows. An invalid src leaves the choice of address and port to
// the kernel.
//
// Verb: rdma_resolve_addr(3).
func (x *ID) ResolveAddr(src, dst netip.AddrPort, timeout time.Duration) error {
	ms, err := millis("rdma_resolve_addr", timeout)
	if err != nil {
		return err
	}
	return x.call("rdma_resolve_addr", func() error { return x.p.ResolveAddr(src, dst, ms) })
}

// ResolveRoute starts finding the path: EventRouteResolved or EventRouteError follows.
//
// Verb: rdma_resolve_route(3).
func (x *ID) ResolveRoute(timeout time.Duration) error {
	ms, err := millis("rdma_resolve_route", timeout)
	if err != nil {
		return err
	}
	return x.call("rdma_resolve_route", func() error { return x.p.ResolveRoute(ms) })
}

func millis(verb string, d time.Duration) (int, error) {
	ms := d.Milliseconds()
	if ms < 1 || ms > 1<<31-1 {
		return 0, invalid(verb, "the timeout must be at least a millisecond")
	}
	return int(ms), nil
}

// Connect asks the peer for a connection: EventEstablished or a failure follows.
// Without a queue pair on the ID the answer is EventConnectResponse and Establish
// completes it. In PSUDP it asks for the peer's queue pair number.
//
// Verb: rdma_connect(3).
func (x *ID) Connect(p ConnParam) error {
	c, err := p.toProvider("rdma_connect", limit(x.ps, msgConnect))
	if err != nil {
		return err
	}
	return x.call("rdma_connect", func() error { return x.p.Connect(c) })
}

// Accept answers a connection request: EventEstablished follows, on this ID. Post
// receives before.
//
// Verb: rdma_accept(3).
func (x *ID) Accept(p ConnParam) error {
	c, err := p.toProvider("rdma_accept", limit(x.ps, msgAccept))
	if err != nil {
		return err
	}
	return x.call("rdma_accept", func() error { return x.p.Accept(c) })
}

// Reject refuses a connection request; the peer gets RejectConsumer and the data.
//
// Verb: rdma_reject(3).
func (x *ID) Reject(private []byte) error {
	if err := checkPrivate("rdma_reject", len(private), limit(x.ps, msgReject)); err != nil {
		return err
	}
	return x.call("rdma_reject", func() error { return x.p.Reject(private) })
}

// RejectECE refuses a connection request for its options: the peer gets
// RejectVendorOption.
//
// Verb: rdma_reject_ece(3).
func (x *ID) RejectECE(private []byte) error {
	if err := checkPrivate("rdma_reject_ece", len(private), limit(x.ps, msgReject)); err != nil {
		return err
	}
	return optional(x, "rdma_reject_ece", func(p provider.CMECE) error { return p.RejectECE(private) })
}

// optional calls what only some providers have.
func optional[T any](x *ID, verb string, f func(T) error) error {
	return x.call(verb, func() error {
		p, ok := x.p.(T)
		if !ok {
			return syscall.EOPNOTSUPP
		}
		return f(p)
	})
}

// Listen starts listening on the bound address. A backlog of 0 is the kernel's.
//
// Verb: rdma_listen(3).
func (x *ID) Listen(backlog int) error {
	return x.call("rdma_listen", func() error { return x.p.Listen(backlog) })
}

// Establish completes a connection whose queue pair is not the ID's, after
// EventConnectResponse and the move of the queue pair to RTS.
//
// Verb: rdma_establish(3).
func (x *ID) Establish() error { return x.call("rdma_establish", x.p.Establish) }

// Disconnect ends a connection and moves the ID's queue pair to the error state,
// so that its work requests are flushed. EventDisconnected follows on both sides,
// EventTimewaitExit later.
//
// Verb: rdma_disconnect(3).
func (x *ID) Disconnect() error {
	return x.call("rdma_disconnect", func() error {
		err := x.p.Disconnect()
		if q := x.queuePair(); q != nil && err == nil {
			bridge.SetQPState(q, verbs.QPSErr)
		}
		return err
	})
}

// Notify tells the manager of an event of a queue pair that is not the ID's,
// usually verbs.EventCommEst.
//
// Verb: rdma_notify(3).
func (x *ID) Notify(t verbs.EventType) error {
	return x.call("rdma_notify", func() error { return x.p.Notify(t) })
}

// MigrateID moves the ID to another channel, with the events that wait for it.
//
// Verb: rdma_migrate_id(3).
func (x *ID) MigrateID(to *EventChannel) error {
	if to == nil {
		return invalid("rdma_migrate_id", "a channel is required")
	}
	if err := to.h.Enter(); err != nil {
		return closed("rdma_migrate_id")
	}
	defer to.h.Exit()
	return x.call("rdma_migrate_id", func() error {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.ch == nil {
			return syscall.EINVAL
		}
		if x.ch == to {
			return nil
		}
		if err := x.p.Migrate(to.p); err != nil {
			return err
		}
		to.ids.Add(1)
		x.ch.ids.Add(-1)
		x.ch = to
		return nil
	})
}

// SetLocalECE stores the options to offer to the peer.
//
// Verb: rdma_set_local_ece(3).
func (x *ID) SetLocalECE(e verbs.ECE) error {
	return optional(x, "rdma_set_local_ece", func(p provider.CMECE) error { return p.SetLocalECE(e) })
}

// RemoteECE reads the options of the peer; only for an ID without a queue pair.
//
// Verb: rdma_get_remote_ece(3).
func (x *ID) RemoteECE() (e verbs.ECE, err error) {
	err = optional(x, "rdma_get_remote_ece", func(p provider.CMECE) (err error) { e, err = p.RemoteECE(); return err })
	return e, err
}

func (x *ID) queuePair() *verbs.QP {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.qp.Value()
}

func (x *ID) established() {
	if q := x.queuePair(); q != nil {
		bridge.SetQPState(q, verbs.QPSRTS)
	}
}

// Close destroys the ID; a connection request is rejected by it. ErrInUse while
// a queue pair or shared receive queue of it, or a region of its own domain, is
// open. It never waits for events. One made by CreateEP or GetRequest takes its
// queue pair and its channel along.
//
// Verb: rdma_destroy_id(3), rdma_destroy_ep(3).
func (x *ID) Close() error {
	if x.ep == nil {
		return x.close()
	}
	if x.ep.qp != nil {
		if err := x.ep.qp.Close(); err != nil {
			return err
		}
	}
	if err := x.close(); err != nil {
		return err
	}
	if x.ep.ch != nil {
		return x.ep.ch.Close()
	}
	return nil
}

func (x *ID) close() error {
	return cmErr("rdma_destroy_id", x.h.Close(func() error {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.pd != nil {
			if err := x.pd.Close(); err != nil {
				return err
			}
			x.pd = nil
		}
		live.Lock()
		delete(live.m, x.cookie)
		live.Unlock()
		if e, ok := x.p.(provider.CMEndpoint); ok {
			e.Interrupt()
		}
		err := x.p.Close()
		if x.ch != nil {
			x.ch.ids.Add(-1)
		}
		return err
	}))
}

// Wait takes events from the ID's channel until one of type want; an event of
// failure of this ID is its error. For channels that only this ID uses: events of
// other IDs are dropped, and requests among them closed.
func (x *ID) Wait(ctx context.Context, want EventType) (*Event, error) {
	return x.wait(ctx, want, StepConnect)
}

func (x *ID) wait(ctx context.Context, want EventType, step Step) (*Event, error) {
	ch := x.Channel()
	if ch == nil {
		return nil, invalid("rdma_get_cm_event", "an endpoint has no channel: use GetRequest")
	}
	for {
		e, err := ch.Get(ctx)
		if err != nil {
			return nil, &ConnectError{Step: step, Peer: x.PeerAddr(), Cause: err}
		}
		if e.Listener == x && want == EventConnectRequest {
			return e, nil
		}
		if e.ID != x {
			if e.Listener != nil {
				e.ID.Close()
			}
			continue
		}
		if e.Type == want {
			return e, nil
		}
		if err := eventErr(e, step, x.PeerAddr()); err != nil {
			return nil, err
		}
	}
}
