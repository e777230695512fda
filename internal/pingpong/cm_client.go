package pingpong

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

// cmPrivate is how much a refusal may say: the private data of a rejection.
const cmPrivate = 136

// DialCM connects to a server through the connection manager at addr, host:port.
func (d *Device) DialCM(ctx context.Context, addr string, o Options) (*Client, error) {
	if err := d.check(&o); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, ExchangeTime)
	defer cancel()
	peers, err := resolve(ctx, addr)
	if err != nil {
		return nil, endpoint.Step("route", err)
	}
	var errs []error
	for _, p := range peers {
		dial := d.dialRC
		if o.Transport == UD {
			dial = d.dialUD
		}
		c, err := dial(ctx, p, o)
		if err == nil {
			return c, nil
		}
		errs = append(errs, refusal(err))
	}
	return nil, endpoint.Step("cm", errors.Join(errs...))
}

func resolve(ctx context.Context, addr string) ([]netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	out := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		out[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return out, nil
}

// refusal is what the server said in a rejection.
func refusal(err error) error {
	var ce *rdmacm.ConnectError
	if errors.As(err, &ce) && ce.Event == rdmacm.EventRejected {
		if _, why := decodeShort(ce.PrivateData); why != nil && !errors.Is(why, errNotPing) {
			return &endpoint.StepError{Step: "cm", Cause: why}
		}
		if ce.Reason == rdmacm.RejectInvalidServiceID {
			return &endpoint.StepError{Step: "cm", Cause: err, Hint: "is `zrdma ping --serve` running there, with a connection manager?"}
		}
	}
	return err
}

func (d *Device) dialRC(ctx context.Context, peer netip.AddrPort, o Options) (*Client, error) {
	e := d.prepare(o, rcSlots)
	conn, err := rdmacm.Dial(ctx, peer, rdmacm.DialConfig{
		Device: d.Context(), QP: e.managed(), Conn: rdmacm.ConnParam{PrivateData: e.greeting(), RNRRetryCount: 6}, Setup: e.attach,
	})
	if err != nil {
		return nil, err
	}
	e.keep(conn.Close)
	c := &Client{e: e, name: fmt.Sprintf("QP %#x of %v to %v by rdma_cm", e.qp.QPN(), conn.LocalAddr().Addr(), conn.PeerAddr())}
	if n, err := decodeShort(conn.PrivateData); err != nil || n != o.Size {
		c.Close()
		return nil, endpoint.Step("cm", errors.Join(err, fmt.Errorf("the server answers with messages of %d bytes, not %d", n, o.Size)))
	}
	gone, cancel := context.WithCancelCause(context.Background())
	c.gone = gone
	watch, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if conn.WaitDisconnected(watch) == nil {
			cancel(errGone)
		}
	}()
	e.keep(func() error { stop(); <-ended; return nil })
	return c, nil
}

// managed is the queue pair that the connection manager makes, with queues of its own.
func (e *end) managed() verbs.QPConfig {
	n := uint32(e.slots)
	return verbs.QPConfig{Cap: verbs.QPCap{MaxSendWR: n, MaxRecvWR: n, MaxSendSGE: 1, MaxRecvSGE: 1}}
}

func (e *end) greeting() []byte { return Hello{Size: e.o.Size}.short() }

// attach registers memory and posts receives before the peer hears of us.
func (e *end) attach(c *rdmacm.Conn) error {
	e.qp, e.pd, e.cq, e.ch = c.QP, c.PD, c.SendCQ, c.SendCQ.Channel()
	mr, err := c.PD.RegMR(e.buf, verbs.AccessLocalWrite)
	if err != nil {
		return err
	}
	e.mr = mr
	c.Own(mr)
	first := outSlot + 1
	if e.slots == echoSlots {
		first = 0
	}
	for i := first; i < e.slots; i++ {
		if err := e.postRecv(i); err != nil {
			return err
		}
	}
	return nil
}

// dialUD asks the connection manager for the server's queue pair.
func (d *Device) dialUD(ctx context.Context, peer netip.AddrPort, o Options) (_ *Client, err error) {
	e := d.prepare(o, udSlots)
	c := &Client{e: e, gone: context.Background()}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	x, err := d.newID(e)
	if err != nil {
		return nil, err
	}
	step := func(s rdmacm.Step, begin func() error, want rdmacm.EventType) (*rdmacm.Event, error) {
		if err := begin(); err != nil {
			return nil, &rdmacm.ConnectError{Step: s, Peer: peer, Cause: err}
		}
		return x.Wait(ctx, want)
	}
	if _, err := step(rdmacm.StepAddress, func() error { return x.ResolveAddr(netip.AddrPort{}, peer, cmTime) }, rdmacm.EventAddrResolved); err != nil {
		return nil, err
	}
	if _, err := step(rdmacm.StepRoute, func() error { return x.ResolveRoute(cmTime) }, rdmacm.EventRouteResolved); err != nil {
		return nil, err
	}
	if err := e.manage(x, x.Context()); err != nil {
		return nil, endpoint.Step("qp", err)
	}
	if err := e.postRecvs(); err != nil {
		return nil, err
	}
	ev, err := step(rdmacm.StepConnect, func() error { return x.Connect(rdmacm.ConnParam{PrivateData: e.greeting()}) }, rdmacm.EventEstablished)
	if err != nil {
		return nil, err
	}
	if err := e.address(ev.AH, ev.QPN, ev.QKey); err != nil {
		return nil, err
	}
	c.name = fmt.Sprintf("QP %#x of %v to QP %#x of %v by rdma_cm", e.qp.QPN(), x.LocalAddr().Addr(), ev.QPN, peer)
	return c, nil
}
