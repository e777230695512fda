package perf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/verbs"
)

// Client is the end that decides what is measured.
type Client struct {
	dev     *endpoint.Device
	ctl     *control
	gid     verbs.GIDEntry
	release string
	server  Host
	broken  error // a measurement that the server still takes for under way

	mu   sync.Mutex
	work *work // guarded by mu: the measurement under way, or nil
}

// Progress is how far the measurement under way has come.
type Progress struct {
	Elapsed  time.Duration
	Messages int64 // that this end has sent
	Bytes    int64
}

// Dial connects to a server at addr, host:port, over TCP. A *PeerError is another
// program, a *BusyError a server that has a client.
func Dial(ctx context.Context, dev *endpoint.Device, addr, release string) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		h := ""
		if errors.Is(err, syscall.ECONNREFUSED) {
			h = "is `zrdma bench --serve` running there, on this port?"
		}
		return nil, &endpoint.StepError{Step: "exchange", Cause: err, Hint: h}
	}
	return NewClient(ctx, dev, conn, release)
}

// NewClient begins over conn, which it takes.
func NewClient(ctx context.Context, dev *endpoint.Device, conn net.Conn, release string) (_ *Client, err error) {
	defer func() {
		if err != nil {
			conn.Close()
			err = endpoint.Step("exchange", err)
		}
	}()
	c := &Client{dev: dev, release: release}
	if c.gid, err = dev.SelectGID(endpoint.LocalIP(conn), verbs.GID{}); err != nil {
		return nil, endpoint.Step("gid", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn.SetDeadline(time.Now().Add(helloTime))
	if _, err := conn.Write(hello{Min: minVersion, Max: maxVersion, Release: release}.encode()); err != nil {
		return nil, err
	}
	h, err := readHello(conn)
	if err != nil {
		if ctx.Err() != nil && !errors.As(err, new(*PeerError)) {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	if _, err := h.agree(); err != nil {
		return nil, err
	}
	if h.Refused != "" {
		return nil, &BusyError{h.Refused}
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	conn.SetDeadline(time.Time{})
	c.ctl = newControl(conn)
	return c, nil
}

// Server is the other end, known after the first measurement.
func (c *Client) Server() Host { return c.server }

// Host is this end.
func (c *Client) Host() Host { return hostOf(c.dev, c.gid, c.release) }

// Close says goodbye.
func (c *Client) Close() { c.ctl.close() }

// Progress tells about the measurement under way.
func (c *Client) Progress() (p Progress) {
	c.mu.Lock()
	w := c.work
	c.mu.Unlock()
	if w != nil {
		p.Messages = w.sent()
		p.Bytes = p.Messages * int64(w.c.Size)
		if s := w.began.Load(); s != nil {
			p.Elapsed = time.Since(*s)
		}
	}
	return p
}

func (c *Client) set(w *work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.work = w
}

// Run measures a case. When it ends early, because ctx did or something failed,
// the sample has what was measured by then and says why.
func (c *Client) Run(ctx context.Context, cs Case) (s Sample, err error) {
	if c.broken != nil {
		return s, fmt.Errorf("the session has ended: %w", c.broken)
	}
	cs, err = cs.WithDefaults()
	if err != nil {
		return s, err
	}
	if err := c.dev.CheckSize(cs.Size, MaxSize); err != nil {
		return s, endpoint.Step("size", err)
	}
	w := newWork(cs)
	defer func() {
		c.set(nil)
		if cerr := w.close(); err == nil {
			err = cerr
		}
		if err != nil {
			s.Partial = err.Error()
		}
	}()
	if err := c.connect(ctx, w); err != nil {
		if !errors.As(err, new(*RefusedError)) {
			c.giveUp(err)
		}
		return s, err
	}
	c.set(w)
	s, ended, err := c.measure(ctx, w)
	if !ended {
		c.giveUp(err)
	}
	return s, err
}

// giveUp tells the server why it need not wait for more.
func (c *Client) giveUp(err error) {
	c.broken = err
	_ = c.ctl.send(message{Failed: err.Error()})
}

// connect sets the queue pairs of both ends up.
func (c *Client) connect(ctx context.Context, w *work) (err error) {
	msg := setup{Case: w.c, Host: c.Host()}
	if w.c.Op != RPC {
		if w.g, err = newGroup(c.dev, w.c, c.gid); err != nil {
			return err
		}
		msg.Ends = w.g.ends()
	}
	if err := c.ctl.send(message{Setup: &msg}); err != nil {
		return err
	}
	m, err := c.ctl.next(ctx, stepTime)
	if err != nil {
		return err
	}
	if m.Ready == nil {
		return &PeerError{"the server did not answer with its queue pairs"}
	}
	c.server = m.Ready.Host.printable()
	if w.c.Op == RPC {
		w.rpc, err = dialRPC(ctx, c.dev, m.Ready, &w.c)
		return err
	}
	return w.g.connect(m.Ready.Ends)
}

// grace is how long a measurement that is interrupted may take to end in order.
const grace = 2 * time.Second

// measure is a case between the ends that are connected. ended says that the server
// has told its side, and is ready for another one.
func (c *Client) measure(ctx context.Context, w *work) (s Sample, ended bool, err error) {
	hard, kill := context.WithCancelCause(context.Background())
	defer kill(nil)
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(grace, func() { kill(context.Cause(ctx)) })
	})()
	defer context.AfterFunc(c.ctl.gone, func() { kill(context.Cause(c.ctl.gone)) })()
	defer watch(c.dev, kill)()

	if err := c.ctl.send(message{Start: true}); err != nil {
		return s, false, err
	}
	before := cpuNow()
	start := time.Now()
	w.began.Store(&start)
	finished := make(chan error, 1)
	go func() { finished <- w.send(ctx, hard) }()
	var other *message // what the server said before we were done: it failed
	select {
	case err = <-finished:
	case m := <-c.ctl.in:
		other = &m
		kill(fmt.Errorf("on the other end: %s", printable([]byte(m.Failed))))
		if err = <-finished; err == nil { // it had just ended here
			err = context.Cause(hard)
		}
	}
	seconds := time.Since(start).Seconds()
	s.ClientCPU = cpuNow().since(before)
	sent, back := w.sent(), int64(0)
	s.setAmount(&w.c, sent, seconds)
	if other == nil && err == nil {
		var d *done
		if d, err = c.stop(hard, stop{Sent: sent, Early: ctx.Err() != nil}); err == nil {
			ended = true
			s.ServerCPU = d.CPU
			if w.c.Bidirectional && d.Seconds > 0 {
				back = d.Sent
				s.setAmount(&w.c, sent+back, seconds)
				// Each direction has a time of its own.
				s.MessagesPerSecond = float64(sent)/seconds + float64(back)/d.Seconds
				s.BytesPerSecond = s.MessagesPerSecond * float64(w.c.Size)
			}
		}
	}
	if serr := w.stop(); err == nil {
		err = serr
	}
	s.setLatency(w.histogram())
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return s, ended, endpoint.Step("bench", err)
}

// stop tells the server that all is sent, and has what it says.
func (c *Client) stop(hard context.Context, s stop) (*done, error) {
	if err := c.ctl.send(message{Stop: &s}); err != nil {
		return nil, err
	}
	m, err := c.ctl.next(hard, maxTime) // a server that reaches the count later ends then
	if err != nil {
		return nil, err
	}
	if m.Done == nil {
		return nil, &PeerError{"the server did not answer with its counts"}
	}
	return m.Done, nil
}

// watch ends a measurement when the device goes away. It returns what ends it.
func watch(dev *endpoint.Device, kill context.CancelCauseFunc) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			e, err := dev.Context().GetAsyncEvent(ctx)
			if err != nil {
				return
			}
			if e.Type == verbs.EventDeviceFatal {
				kill(&endpoint.StepError{Step: "device", Cause: fmt.Errorf("%s has vanished: %w", dev.Name(), syscall.ENODEV),
					Hint: "it was removed, or its driver reset it: see dmesg"})
				return
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}
