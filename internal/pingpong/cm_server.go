package pingpong

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

const (
	cmTime = 3 * time.Second // to resolve an address or a route
	// quietTime ends a session of datagrams that the connection manager began: its
	// client says no goodbye.
	quietTime = 2 * time.Minute
	// maxQuiet bounds such sessions.
	maxQuiet = 64
)

// newID makes an ID of datagrams with a channel of its own, which e closes.
func (d *Device) newID(e *end) (*rdmacm.ID, error) {
	ch, err := rdmacm.CreateEventChannelOn(d.Context())
	if err != nil {
		return nil, err
	}
	e.keep(ch.Close)
	x, err := ch.CreateID(rdmacm.PSUDP)
	if err != nil {
		return nil, err
	}
	e.keep(x.Close)
	return x, nil
}

// manage makes the queue pair of an ID on the device that the manager chose.
func (e *end) manage(x *rdmacm.ID, ctx *verbs.Context) (err error) {
	if ctx == nil {
		return errors.New("the ID has no device")
	}
	if e.pd, err = ctx.AllocPD(); err != nil {
		return err
	}
	e.keep(e.pd.Close)
	if err := e.register(); err != nil {
		return err
	}
	if err := e.queue(ctx); err != nil {
		return err
	}
	if e.qp, err = x.CreateQP(e.pd, e.config()); err != nil {
		return err
	}
	e.keep(e.qp.Close)
	return nil
}

// ServeCM answers clients that come through the connection manager, on the port of
// every address of the device, until ctx ends. ready is called once it listens; an
// error before that says that there is no connection manager.
func (d *Device) ServeCM(ctx context.Context, port uint16, ready func(), done func(Session)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel() // before the Wait
	var mu sync.Mutex
	tell := func(s Session) {
		mu.Lock()
		defer mu.Unlock()
		done(s)
	}
	var errs []error
	on := 0
	for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		at := netip.AddrPortFrom(a, port)
		if err := d.listenRC(ctx, at, &wg, tell); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := d.listenUD(ctx, at, &wg, tell); err != nil {
			errs = append(errs, err)
		}
		on++
	}
	if on == 0 {
		return endpoint.Step("cm", errors.Join(errs...))
	}
	ready()
	<-ctx.Done()
	return nil
}

func reject(err error) error {
	return &rdmacm.RejectError{PrivateData: refusalData(err)}
}

func refusalData(err error) []byte {
	b := encodeRefusal(err.Error())
	if len(b) > cmPrivate {
		b = append(b[:cmPrivate-1], '\n')
	}
	return b
}

func (d *Device) listenRC(ctx context.Context, at netip.AddrPort, wg *sync.WaitGroup, done func(Session)) error {
	var ends sync.Map // *rdmacm.Conn to *end
	cfg := rdmacm.ListenConfig{Device: d.Context(), AFOnly: at.Addr().Is6(), OnError: func(peer netip.AddrPort, err error) {
		done(Session{Peer: net.TCPAddrFromAddrPort(peer), Err: endpoint.Step("cm", err)})
	}}
	cfg.Configure = func(ev *rdmacm.Event, c *rdmacm.ListenConfig) error {
		n, err := decodeShort(ev.PrivateData)
		o := Options{Size: n, Transport: RC}
		if err == nil {
			err = d.check(&o)
		}
		if err != nil {
			return reject(err)
		}
		e := d.prepare(o, echoSlots)
		c.QP, c.Conn.PrivateData, c.Conn.RNRRetryCount = e.managed(), e.greeting(), 6
		c.Setup = func(conn *rdmacm.Conn) error {
			ends.Store(conn, e)
			return e.attach(conn)
		}
		return nil
	}
	l, err := rdmacm.Listen(ctx, at, cfg)
	if err != nil {
		return err
	}
	wg.Go(func() {
		defer l.Close()
		for {
			conn, err := l.Accept(ctx)
			if err != nil {
				return
			}
			v, _ := ends.LoadAndDelete(conn)
			e := v.(*end)
			e.keep(conn.Close)
			wg.Go(func() { done(e.serve(ctx, net.TCPAddrFromAddrPort(conn.PeerAddr()), conn.WaitDisconnected)) })
		}
	})
	return nil
}

// serve echoes until the client has gone, and closes the end.
func (e *end) serve(ctx context.Context, peer net.Addr, gone func(context.Context) error) Session {
	s := Session{Peer: peer, Size: e.o.Size}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	left := make(chan struct{})
	go func() {
		defer close(left)
		_ = gone(ctx)
		cancel()
	}()
	err := e.echo(ctx, &s.Echoed)
	over := ctx.Err() != nil
	cancel()
	<-left
	if !over {
		// A client that leaves flushes our receives before its event is here.
		var ce *verbs.CompletionError
		if !errors.As(err, &ce) || ce.Status != verbs.WCWRFlushErr {
			s.Err = endpoint.Step("ping", err)
		}
	}
	s.Err = errors.Join(s.Err, e.close())
	return s
}

func (d *Device) listenUD(ctx context.Context, at netip.AddrPort, wg *sync.WaitGroup, done func(Session)) error {
	lis := &end{}
	x, err := d.newID(lis)
	if err == nil && at.Addr().Is6() {
		err = x.SetAFOnly(true)
	}
	if err == nil {
		err = x.BindAddr(at)
	}
	if err == nil {
		err = x.Listen(0)
	}
	if err != nil {
		return errors.Join(err, lis.close())
	}
	room := make(chan struct{}, maxQuiet)
	wg.Go(func() {
		var open sync.WaitGroup
		defer func() {
			open.Wait() // their IDs are on the channel
			_ = lis.close()
		}()
		for {
			ev, err := x.Channel().Get(ctx)
			if err != nil {
				return
			}
			if ev.Type != rdmacm.EventConnectRequest {
				continue
			}
			peer := net.UDPAddrFromAddrPort(ev.ID.PeerAddr())
			e, err := d.acceptUD(ev, room)
			if err != nil {
				_ = ev.ID.Reject(refusalData(err))
				done(Session{Peer: peer, Err: errors.Join(endpoint.Step("cm", err), ev.ID.Close())})
				continue
			}
			open.Go(func() {
				defer func() { <-room }()
				done(e.serve(ctx, peer, e.quiet))
			})
		}
	})
	return nil
}

// acceptUD makes an end of a request. After an error its ID is the caller's.
func (d *Device) acceptUD(ev *rdmacm.Event, room chan struct{}) (_ *end, err error) {
	n, err := decodeShort(ev.PrivateData)
	o := Options{Size: n, Transport: UD}
	if err == nil {
		err = d.check(&o)
	}
	if err != nil {
		return nil, err
	}
	select {
	case room <- struct{}{}:
	default:
		return nil, errors.New("too many sessions: try again in two minutes")
	}
	e := d.prepare(o, echoSlots)
	defer func() {
		if err != nil {
			<-room
			err = errors.Join(err, e.close())
		}
	}()
	if err := e.manage(ev.ID, ev.ID.Context()); err != nil {
		return nil, err
	}
	for i := range echoSlots {
		if err := e.postRecv(i); err != nil {
			return nil, err
		}
	}
	a, err := e.qp.Query(verbs.QPAttrQKey)
	if err != nil {
		return nil, err
	}
	e.qkey = a.QKey
	if err := ev.ID.Accept(rdmacm.ConnParam{PrivateData: e.greeting()}); err != nil {
		return nil, err
	}
	e.own = append([]func() error{ev.ID.Close}, e.own...) // last of all
	return e, nil
}

// quiet returns when nothing was answered for a while.
func (e *end) quiet(ctx context.Context) error {
	last := int64(-1)
	t := time.NewTicker(quietTime)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			if n := e.echoed.Load(); n == last {
				return nil
			} else {
				last = n
			}
		}
	}
}
