package rdmacm

import (
	"context"
	"errors"
	"io"
	"net/netip"

	"github.com/zrdma/zrdma/verbs"
)

// Conn is a connected ID with its queue pair, and the queues and domain that were
// made for it.
type Conn struct {
	ID             *ID
	QP             *verbs.QP
	PD             *verbs.PD
	SendCQ, RecvCQ *verbs.CQ // one queue with a channel of its own, unless the configuration named others
	// PrivateData is what the peer sent with its request or its answer, zero padded.
	PrivateData []byte
	// ResponderResources and InitiatorDepth are the peer's.
	ResponderResources, InitiatorDepth uint8

	owned []io.Closer // domain, queues and what Own was given; closed last to first
}

// qpDefaults fills the sizes of a queue pair that were left zero.
func qpDefaults(c verbs.QPConfig) verbs.QPConfig {
	for _, f := range []struct {
		v   *uint32
		def uint32
	}{{&c.Cap.MaxSendWR, 64}, {&c.Cap.MaxRecvWR, 64}, {&c.Cap.MaxSendSGE, 1}, {&c.Cap.MaxRecvSGE, 1}} {
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	if c.SRQ != nil {
		c.Cap.MaxRecvWR, c.Cap.MaxRecvSGE = 0, 0
	}
	return c
}

// build makes what a connection needs on the device of its ID.
func (c *Conn) build(pd *verbs.PD, cfg verbs.QPConfig) error {
	cfg = qpDefaults(cfg)
	ctx := c.ID.Context()
	if ctx == nil {
		return invalid("rdma_create_qp", "the ID has no device")
	}
	if c.PD = pd; pd == nil {
		var err error
		if c.PD, err = ctx.AllocPD(); err != nil {
			return err
		}
		c.owned = append(c.owned, c.PD)
	}
	if cfg.SendCQ == nil {
		ch, err := ctx.CreateCompChannel()
		if err != nil {
			return err
		}
		c.owned = append(c.owned, ch)
		n := cfg.Cap.MaxSendWR + cfg.Cap.MaxRecvWR
		if cfg.SRQ != nil {
			n += cfg.SRQ.Attr().MaxWR
		}
		if cfg.SendCQ, err = ctx.CreateCQ(int(n), &verbs.CQConfig{Channel: ch}); err != nil {
			return err
		}
		c.owned = append(c.owned, cfg.SendCQ)
	}
	if cfg.RecvCQ == nil {
		cfg.RecvCQ = cfg.SendCQ
	}
	c.SendCQ, c.RecvCQ = cfg.SendCQ, cfg.RecvCQ
	var err error
	c.QP, err = c.ID.CreateQP(c.PD, cfg)
	return err
}

// Own makes Close close o too, after the queue pair and before the domain: the
// place of regions registered in Setup.
func (c *Conn) Own(o io.Closer) { c.owned = append(c.owned, o) }

// LocalAddr is this side's address.
func (c *Conn) LocalAddr() netip.AddrPort { return c.ID.LocalAddr() }

// PeerAddr is the peer's address.
func (c *Conn) PeerAddr() netip.AddrPort { return c.ID.PeerAddr() }

// Disconnect ends the connection: work requests are flushed on both sides.
//
// Verb: rdma_disconnect(3).
func (c *Conn) Disconnect() error { return c.ID.Disconnect() }

// WaitDisconnected waits until either side has ended the connection. Call
// Disconnect then, so that work requests on this side are flushed, and Close.
//
// EventUnreachable ends no wait: Linux sends it, from 6.0 on, when the peer's
// link layer address changes or is forgotten, as after a link that was down for
// a moment. Whether the peer is gone is for the queue pair's retries to find out.
func (c *Conn) WaitDisconnected(ctx context.Context) error {
	for {
		_, err := c.ID.wait(ctx, EventDisconnected, StepConnect)
		var ce *ConnectError
		if !errors.As(err, &ce) {
			return err
		}
		switch ce.Event {
		case 0:
			return ce.Cause
		case EventUnreachable:
			continue
		}
		return err
	}
}

// Close disconnects and frees everything that was made for the connection: the
// queue pair first, so that no memory is touched once it returns. Regions in PD
// that are open make it ErrInUse, with all but the domain gone.
func (c *Conn) Close() error {
	if c.QP != nil && !c.ID.h.Closed() {
		_ = c.ID.Disconnect() // not connected any more is no failure
		if err := c.QP.Close(); err != nil {
			return err
		}
	}
	err := c.ID.Close()
	for i := len(c.owned) - 1; i >= 0; i-- {
		err = errors.Join(err, c.owned[i].Close())
	}
	return err
}
