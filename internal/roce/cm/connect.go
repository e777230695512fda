package cm

import (
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/provider"
)

// deviceLimit asks for as much as the device can do.
const deviceLimit = 0xff

// Room for an application's private data.
const (
	roomREQ     = privREQ - addrSize
	roomSIDRREQ = privSIDRREQ - addrSize
)

// depth checks a wish for READs and atomics against the device.
func depth(v, limit uint8) (uint8, error) {
	switch {
	case v == deviceLimit:
		return limit, nil
	case v > limit:
		return 0, errInval
	}
	return v, nil
}

// Connect asks the peer for a connection, or for its datagram queue pair. The
// error of a message that cannot be sent at all is the call's.
func (x *id) Connect(p *provider.CMConnParam) error {
	ud := x.ps == provider.PSUDP
	if len(p.Private) > roomREQ && !ud || len(p.Private) > roomSIDRREQ {
		return errInval
	}
	mtu, err := x.mtu()
	if err != nil {
		return err
	}
	var b batch
	x.mu.Lock()
	qpn, srq := p.QPN, p.SRQ
	if x.qp != nil {
		qpn, srq = x.qp.QPN(), x.qp.srq != nil
	}
	x.m.locked(&b, func(now time.Time) {
		if x.m.gone || x.m.closed {
			err = syscall.ENODEV
			return
		}
		if x.st != idRoute || x.closed {
			err = errInval
			return
		}
		r := &request{
			owner: x, local: plain(x.local.Addr()), peer: plain(x.peer.Addr()), localPort: x.local.Port(),
			service: service(x.ps, x.peer.Port()), qpn: qpn & 0xffffff, flow: p.FlowControl, srq: srq,
			retry: min(p.RetryCount, 7), rnr: min(p.RNRRetryCount, 7), mtu: mtu, ackTimeout: defaultAck,
			tclass: x.tos, flowLabel: x.m.mc.rnd.Uint32() & 0xfffff,
			vendor: x.ece.VendorID & 0xffffff, mod: x.ece.Options, private: p.Private,
		}
		if x.ackSet {
			r.ackTimeout = x.ack
		}
		if ud {
			x.conn = x.m.mc.lookup(now, r)
		} else {
			if r.respRes, err = depth(p.ResponderResources, x.m.lim.respRes); err != nil {
				return
			}
			if r.initDepth, err = depth(p.InitiatorDepth, x.m.lim.initDepth); err != nil {
				return
			}
			x.conn = x.m.mc.connect(now, r)
		}
		x.st = idConnect
	})
	x.mu.Unlock()
	if err != nil {
		return err
	}
	if err := x.m.run(&b); err != nil && err != syscall.EAGAIN && err != syscall.ENOBUFS {
		x.m.mu.Lock()
		defer x.m.mu.Unlock()
		if s := x.conn.st; s == stReqSent || s == stSidrSent {
			x.m.mc.abandon(x.conn)
			x.conn, x.st = nil, idRoute
			x.m.rearm()
			return err
		}
	}
	return nil
}

// mtu is that of the device's port.
func (x *id) mtu() (uint8, error) {
	var a provider.PortAttr
	if err := x.m.port.Context().QueryPort(1, &a); err != nil {
		return 0, err
	}
	if a.ActiveMTU < provider.MTU256 || a.ActiveMTU > provider.MTU4096 {
		return uint8(provider.MTU1024), nil
	}
	return uint8(a.ActiveMTU), nil
}

// Accept answers a request: the id's queue pair is ready before the peer hears.
func (x *id) Accept(p *provider.CMConnParam) error {
	if x.ps == provider.PSUDP {
		return x.acceptUD(p)
	}
	if len(p.Private) > privREP {
		return errInval
	}
	return x.call(func(b *batch) error {
		a := answer{
			qpn: p.QPN & 0xffffff, flow: p.FlowControl, srq: p.SRQ, rnr: min(p.RNRRetryCount, 7),
			ackDelay: x.m.lim.ackDelay, private: p.Private,
		}
		if x.qp != nil {
			a.qpn, a.srq = x.qp.QPN(), x.qp.srq != nil
		}
		var err error = errInval
		x.m.locked(b, func(time.Time) {
			c := x.conn
			if x.closed || c == nil || c.st != stReqRcvd {
				return
			}
			a.vendor, a.mod = x.ece.VendorID&0xffffff, x.ece.Options
			if a.respRes, err = x.agree(p.ResponderResources, x.reqResp, x.m.lim.respRes); err != nil {
				return
			}
			if a.initDepth, err = x.agree(p.InitiatorDepth, x.reqInit, x.m.lim.initDepth); err != nil {
				return
			}
			c.respRes, c.initDepth = a.respRes, a.initDepth
			if x.ackSet {
				c.ackTimeout = x.ack
			} else if c.ackTimeout == 0 || c.ackTimeout > defaultAck {
				c.ackTimeout = defaultAck
			}
			if x.tos != 0 {
				c.tclass = x.tos
			}
		})
		if err == nil {
			err = x.ready()
		}
		if err != nil {
			return err
		}
		x.m.locked(b, func(now time.Time) { err = x.m.mc.accept(now, x.conn, &a) })
		return err
	})
}

// agree takes a wish, or what the request and the device allow.
func (x *id) agree(v, asked, limit uint8) (uint8, error) {
	if v == deviceLimit {
		return min(asked, limit), nil
	}
	return depth(v, limit)
}

func (x *id) acceptUD(p *provider.CMConnParam) error {
	if len(p.Private) > privSIDRREP {
		return errInval
	}
	return x.call(func(b *batch) error {
		qpn := p.QPN & 0xffffff
		var err error = errInval
		if x.qp != nil {
			qpn = x.qp.QPN()
		}
		x.m.locked(b, func(now time.Time) {
			if x.conn != nil && !x.closed {
				err = x.m.mc.answerLookup(now, x.conn, sidrOK, qpn, udQKey, p.Private)
			}
		})
		return err
	})
}

// Reject refuses a request, or an answer that has not been used.
func (x *id) Reject(private []byte) error { return x.reject(rejConsumer, private) }

// RejectECE refuses a request for its options.
func (x *id) RejectECE(private []byte) error { return x.reject(rejVendor, private) }

func (x *id) reject(reason uint16, private []byte) error {
	if len(private) > privREJ || x.ps == provider.PSUDP && len(private) > privSIDRREP {
		return errInval
	}
	return x.change(func(now time.Time) error {
		switch c := x.conn; {
		case c == nil:
			return errInval
		case c.st == stSidrRcvd:
			return x.m.mc.answerLookup(now, c, sidrReject, 0, 0, private)
		default:
			return x.m.mc.reject(now, c, reason, private)
		}
	})
}

// Establish completes a connection whose queue pair is not the id's.
func (x *id) Establish() error {
	return x.change(func(now time.Time) error {
		if x.conn == nil {
			return errInval
		}
		return x.m.mc.ready(now, x.conn)
	})
}

// Notify passes on an event of a queue pair that is not the id's.
func (x *id) Notify(t provider.EventType) error {
	return x.change(func(now time.Time) error {
		if x.conn == nil || t != provider.EventCommEst {
			return errInval
		}
		return x.m.mc.arrived(now, x.conn)
	})
}

// Disconnect moves the queue pair to ERR and ends the connection.
func (x *id) Disconnect() error {
	return x.call(func(b *batch) error {
		if x.qp != nil {
			if err := x.qp.toErr(); err != nil {
				return err
			}
		}
		var err error
		x.m.locked(b, func(now time.Time) {
			if x.conn == nil || x.ps == provider.PSUDP {
				err = errInval
				return
			}
			x.m.mc.disconnect(now, x.conn)
		})
		return err
	})
}

// complete makes the queue pair ready after the peer's answer, and tells the peer.
func (x *id) complete(c *conn, ev provider.CMEvent) {
	var b batch
	x.mu.Lock()
	err := x.ready()
	x.m.locked(&b, func(now time.Time) {
		if c.st != stRepRcvd || x.closed {
			return // closed or refused meanwhile; that was told
		}
		if err != nil {
			_ = x.m.mc.reject(now, c, rejConsumer, nil)
			e := errInval
			if n, ok := err.(syscall.Errno); ok {
				e = n
			}
			x.m.push(x, provider.CMEvent{Type: provider.CMEventConnectError, Status: -int32(e)})
			return
		}
		ev.Type = provider.CMEventEstablished
		x.m.push(x, ev)
		_ = x.m.mc.ready(now, c)
	})
	x.mu.Unlock()
	_ = x.m.run(&b)
}

// fail flushes the queue pair of a connection that was refused, then tells.
func (x *id) fail(ev provider.CMEvent) {
	x.mu.Lock()
	if x.qp != nil {
		_ = x.qp.toErr()
	}
	x.m.mu.Lock()
	x.m.push(x, ev)
	x.m.mu.Unlock()
	x.mu.Unlock()
}

// SetLocalECE stores options to offer.
func (x *id) SetLocalECE(e provider.ECE) error {
	return x.change(func(time.Time) error {
		x.ece = e
		return nil
	})
}

// RemoteECE reads the peer's options.
func (x *id) RemoteECE() (e provider.ECE, err error) {
	err = x.change(func(time.Time) error {
		if x.hasQP || x.conn == nil {
			return errInval
		}
		e = provider.ECE{VendorID: x.conn.peerVendor, Options: x.conn.peerMod}
		return nil
	})
	return e, err
}

// SetOption sets an option of rdma_set_option(3).
func (x *id) SetOption(level, name int, value []byte) error {
	if len(value) == 0 {
		return errInval
	}
	return x.change(func(time.Time) error { return x.setOption(level, name, value) })
}

const (
	optTOS = iota
	optReuse
	optAFOnly
	optAck
)

func (x *id) setOption(level, name int, value []byte) error {
	if level != 0 || name < optTOS || name > optAck {
		return syscall.ENOSYS
	}
	size := 4
	if name == optTOS || name == optAck {
		size = 1
	}
	if len(value) != size {
		return errInval
	}
	on := false
	for _, b := range value {
		on = on || b != 0
	}
	switch name {
	case optTOS:
		x.tos = value[0]
	case optReuse:
		if x.st != idIdle && (!on || x.st == idListen) {
			return errInval
		}
		x.reuse = on
	case optAFOnly:
		if x.st > idBound {
			return errInval
		}
		x.afonly, x.afonlySet = on, true
	case optAck:
		if value[0] > 31 {
			return errInval
		}
		x.ack, x.ackSet = value[0], true
	}
	return nil
}
