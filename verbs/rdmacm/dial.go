package rdmacm

import (
	"context"
	"net/netip"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// DialConfig says how Dial connects. The zero value is good.
type DialConfig struct {
	Local netip.AddrPort // source address and port; invalid: the kernel's choice

	// Device connects from this device, through the connection manager that serves
	// it; nil: the kernel's choice, or what CreateEventChannel says.
	Device *verbs.Context

	// PD is the domain of the queue pair, made from a context of the connection
	// manager (Devices, ID.Context); nil: one of its own.
	PD *verbs.PD
	// QP sizes the queue pair: 64 requests of 1 element each way where zero. Without
	// queues it gets one for both, with a channel.
	QP   verbs.QPConfig
	Conn ConnParam

	AddrTimeout  time.Duration // to resolve the address; 0: 2 s
	RouteTimeout time.Duration // to resolve the route; 0: 2 s
	TOS          uint8         // type of service; 0: not set
	AckTimeout   uint8         // wait for an acknowledgement, 4.096 us * 2^AckTimeout; 0: the manager's

	// Setup is called when the queue pair is there and before the peer hears of
	// it: the place to register memory and to post receives. An error ends the Dial.
	Setup func(*Conn) error
}

func (c DialConfig) withDefaults() DialConfig {
	if c.AddrTimeout == 0 {
		c.AddrTimeout = resolveTimeout
	}
	if c.RouteTimeout == 0 {
		c.RouteTimeout = resolveTimeout
	}
	return c
}

// Dial connects a new reliable connection to peer. A failure is a *ConnectError
// that names the step, and leaves nothing open; ctx ends every step. Without a
// deadline in ctx a peer whose manager does not answer is given up by the kernel
// after about a minute.
//
// It is what rdma_create_ep and rdma_connect do in C, on the asynchronous calls.
//
// Verb: rdma_resolve_addr(3), rdma_resolve_route(3), rdma_create_qp(3), rdma_connect(3).
func Dial(ctx context.Context, peer netip.AddrPort, cfg DialConfig) (_ *Conn, err error) {
	cfg = cfg.withDefaults()
	if err := checkPrivate("rdma_connect", len(cfg.Conn.PrivateData), limit(PSTCP, msgConnect)); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, &ConnectError{Step: StepAddress, Peer: peer, Cause: err}
	}
	x, err := ownID(cfg.Device, PSTCP)
	if err != nil {
		return nil, err
	}
	c := &Conn{ID: x}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	options := func() error {
		if cfg.TOS != 0 {
			if err := x.SetTOS(cfg.TOS); err != nil {
				return err
			}
		}
		if cfg.AckTimeout != 0 {
			return x.SetAckTimeout(cfg.AckTimeout)
		}
		return nil
	}
	if err := x.route(ctx, cfg.Local, peer, cfg.AddrTimeout, cfg.RouteTimeout, options); err != nil {
		return nil, err
	}
	if err := c.build(cfg.PD, cfg.QP); err != nil {
		return nil, &ConnectError{Step: StepQP, Peer: peer, Cause: err}
	}
	if cfg.Setup != nil {
		if err := cfg.Setup(c); err != nil {
			return nil, &ConnectError{Step: StepQP, Peer: peer, Cause: err}
		}
	}
	if err := x.Connect(cfg.Conn); err != nil {
		return nil, &ConnectError{Step: StepConnect, Peer: peer, Cause: err}
	}
	e, err := x.wait(ctx, EventEstablished, StepConnect)
	if err != nil {
		return nil, withPeer(err, peer)
	}
	c.learn(e)
	return c, nil
}

func (c *Conn) learn(e *Event) {
	c.PrivateData = e.PrivateData
	c.ResponderResources, c.InitiatorDepth = e.ResponderResources, e.InitiatorDepth
}
