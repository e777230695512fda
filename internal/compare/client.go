package compare

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"
)

// Config is what Run compares.
type Config struct {
	Addr   string   // of the server, host:port
	Job    Job      // what each run moves
	Rounds int      // how often each way runs, in turn
	Ways   []string // their names; nil: all
	// Device is the RDMA device of this end; "": what $ZRDMA_DEVICE names, else the
	// first kernel device with an active port, else SoftDevice.
	Device string
	// OnEvent hears how far it is, in the goroutine of Run or one of its own, but
	// never two at a time.
	OnEvent func(Event)
}

// Event is a step of a comparison. Round 0 is the warm-up.
type Event struct {
	Way   string
	Round int
	Moved int64         // bytes of this run, verified
	Total int64         // bytes of this run
	Took  time.Duration // since the run began
	Run   *RunResult    // it has ended well
	Err   error         // it has not: a *CannotError or a failure
}

// progressEvery is how often a run says how far it is.
const progressEvery = 200 * time.Millisecond

type client struct {
	cfg  Config
	ctl  *control
	addr string
}

// Run compares. It returns what it measured also with an error: when ctx ended,
// the server left, or a way failed (an error that is no *CannotError); only the
// result of a server that could not be reached is nil.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if err := cfg.Job.Check(); err != nil {
		return nil, err
	}
	if err := CheckWays(cfg.Ways); err != nil {
		return nil, err
	}
	// One device for all runs: when it goes away there is no other in its place.
	cfg.Device = DeviceName(cfg.Device)
	c := &client{cfg: cfg, addr: cfg.Addr}
	if c.cfg.OnEvent == nil {
		c.cfg.OnEvent = func(Event) {}
	}
	host, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.ctl.c.Close()
	res := &Result{Format: Format, Version: FormatVersion, Started: time.Now().UTC(), Job: cfg.Job, Rounds: cfg.Rounds,
		Server: host, Client: thisHost(cfg.Device), How: HowCounted}
	res.SameHost = host.Name == res.Client.Name && isLocal(c.ctl.c)
	for _, w := range Ways() {
		if cfg.Ways == nil || slices.Contains(cfg.Ways, w.Name) {
			res.Ways = append(res.Ways, WayResult{Way: w})
		}
	}
	err = c.rounds(ctx, res)
	if ctx.Err() != nil {
		res.Interrupted = true
	}
	return res, err
}

// isLocal says whether both ends of a connection have the same address.
func isLocal(c net.Conn) bool {
	a, ok := c.LocalAddr().(*net.TCPAddr)
	b, ok2 := c.RemoteAddr().(*net.TCPAddr)
	return ok && ok2 && a.IP.Equal(b.IP)
}

// busyWait is how long a client waits for a server that is busy: long enough for
// the end of the session before.
const busyWait = 2 * time.Second

// dial connects to the server and says hello.
func (c *client) dial(ctx context.Context) (*Host, error) {
	for end := time.Now().Add(busyWait); ; {
		h, err := c.dialOnce(ctx)
		var m *MismatchError
		if !errors.As(err, &m) || !m.Busy || time.Now().After(end) {
			return h, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// MismatchError: the server is not one for this client, or not now.
type MismatchError struct {
	Addr, Why string
	Busy      bool // it may be later
}

func (e *MismatchError) Error() string { return e.Addr + " " + e.Why }

func (c *client) dialOnce(ctx context.Context) (*Host, error) {
	conn, err := c.connect(ctx, preamble{kind: forControl, version: protocol})
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("%w: is `zrdma compare --server` running there, on this port?", err)
		}
		return nil, err
	}
	c.ctl = newControl(conn)
	fail := func(err error) (*Host, error) {
		conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var m message
	if err = c.ctl.send(message{Type: msgHello, Protocol: protocol}); err == nil {
		m, err = c.ctl.receive(patience)
	}
	switch {
	case err != nil:
		return fail(&MismatchError{Addr: c.addr, Why: "does not answer as zrdma compare --server does: " + err.Error()})
	case m.Type == msgBusy:
		return fail(&MismatchError{Addr: c.addr, Why: "is busy: " + m.Why, Busy: true})
	case m.Type != msgHello || m.Host == nil:
		return fail(&MismatchError{Addr: c.addr, Why: fmt.Sprintf("said %q where %q was due: it is no zrdma compare --server", m.Type, msgHello)})
	case m.Protocol != protocol:
		return fail(&MismatchError{Addr: c.addr, Why: fmt.Sprintf("speaks version %d of the protocol, this is version %d: use the same version of zrdma at both ends", m.Protocol, protocol)})
	}
	return m.Host, nil
}

func (c *client) connect(ctx context.Context, p preamble) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: patience}
	conn, err := d.DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(p.encode()); err != nil {
		conn.Close()
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// rounds runs the ways alternately: a short round that is not counted, which also
// finds out who cannot, then as many as were asked for, each in another order.
func (c *client) rounds(ctx context.Context, res *Result) error {
	var failures []error
	for round := 0; round <= c.cfg.Rounds; round++ {
		for k := range res.Ways {
			w := &res.Ways[k]
			if round > 0 {
				w = &res.Ways[(k+round-1)%len(res.Ways)]
			}
			if w.Cannot != "" || w.Failed != "" {
				if round == 0 {
					c.cfg.OnEvent(Event{Way: w.Name, Err: &CannotError{"client", w.Cannot}})
				}
				continue
			}
			job := c.cfg.Job
			if round == 0 {
				job = job.warmUp()
			}
			if err := ctx.Err(); err != nil {
				return errors.Join(append(failures, err)...)
			}
			r, err := c.run(ctx, w.Name, job, round)
			if err != nil && ctx.Err() != nil {
				return errors.Join(append(failures, ctx.Err())...)
			}
			var no *CannotError
			var gone *goneError
			if round > 0 && errors.As(err, &no) {
				err = fmt.Errorf("it could be done before: %s", no.Error())
			}
			switch {
			case err == nil:
				r.Round = round
				if round > 0 {
					w.Runs = append(w.Runs, *r)
				}
			case errors.As(err, &no):
				w.Cannot = no.Error()
			default:
				w.Failed = err.Error()
				failures = append(failures, fmt.Errorf("%s: %w", w.Name, err))
			}
			c.cfg.OnEvent(Event{Way: w.Name, Round: round, Run: r, Err: err})
			if errors.As(err, &gone) {
				return errors.Join(failures...)
			}
		}
	}
	return errors.Join(failures...)
}
