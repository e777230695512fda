package perf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/verbs"
)

// Server is the end that does what the client decides. One client at a time is
// served; others are told who is. The fields are set before Serve.
type Server struct {
	Device    *endpoint.Device
	Release   string
	Rules     Rules
	MaxMemory int64 // bytes that a case may register; 0: 1 GiB
	// Served hears of every client that left, and of those that were refused, one at
	// a time. nil: nobody does.
	Served func(Session)

	mu   sync.Mutex
	busy string // guarded by mu: who is served, and since when; "" when nobody
	told sync.Mutex
}

// Session is what a server tells about a client that left.
type Session struct {
	Peer  net.Addr
	Cases []Case // that were measured, whole or not
	Err   error  // nil when the client said goodbye
}

// idleTime is how long a client may do nothing between two measurements.
const idleTime = 30 * time.Second

// Serve serves clients until ctx ends or, when clients is not 0, so many have
// left, and closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener, clients int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	var left atomic.Int64
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return endpoint.Step("exchange", err)
		}
		if t, ok := conn.(*net.TCPConn); ok { // a host that died says no goodbye
			_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3})
		}
		wg.Go(func() {
			x := s.ServeConn(ctx, conn)
			s.told.Lock()
			defer s.told.Unlock()
			if s.Served != nil {
				s.Served(x)
			}
			if len(x.Cases) > 0 && left.Add(1) == int64(clients) {
				cancel()
			}
		})
	}
}

// ServeConn serves one client over conn, which it takes.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn) (x Session) {
	x.Peer = conn.RemoteAddr()
	if x.Err = s.greet(conn); x.Err != nil {
		conn.Close()
		return x
	}
	defer s.release()
	ctl := newControl(conn)
	defer ctl.close()
	for {
		m, err := ctl.next(ctx, idleTime)
		switch {
		case errors.Is(err, errHungUp) || ctx.Err() != nil:
			return x
		case err == nil && m.Setup == nil:
			err = &PeerError{"a message that is out of turn"}
		}
		if err == nil {
			var began bool
			if began, err = s.measure(ctx, ctl, m.Setup); began {
				x.Cases = append(x.Cases, m.Setup.Case)
			}
			var refused *RefusedError
			if errors.As(err, &refused) {
				if err = ctl.send(message{Refuse: refused.Why}); err == nil {
					continue // the client may ask for something else
				}
			}
		}
		if err != nil {
			if !errors.Is(err, errHungUp) {
				_ = ctl.send(message{Failed: err.Error()})
			}
			x.Err = endpoint.Step("bench", err)
			return x
		}
	}
}

// greet exchanges hellos and takes the place of the one client.
func (s *Server) greet(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(helloTime))
	h, err := readHello(conn)
	ours := hello{Min: minVersion, Max: maxVersion, Release: s.Release}
	if err == nil {
		if _, err = h.agree(); err == nil {
			if who := s.take(conn.RemoteAddr()); who != "" {
				err = &BusyError{who}
				ours.Refused = who
			}
		}
	}
	// One that speaks another version finds that out from ours; one that speaks
	// something else is told in vain, which does no harm.
	conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, werr := conn.Write(ours.encode()); err == nil && werr != nil {
		s.release()
		err = werr
	}
	conn.SetDeadline(time.Time{})
	return endpoint.Step("exchange", err)
}

// take returns who is served already, or "".
func (s *Server) take(peer net.Addr) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy != "" {
		return s.busy
	}
	s.busy = fmt.Sprintf("the server is busy with %v since %s, and serves one client at a time", peer, time.Now().UTC().Format("15:04:05 UTC"))
	return ""
}

func (s *Server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = ""
}

func (s *Server) check(c Case) (Case, error) {
	if c.Op != "" && !slices.Contains(Ops, c.Op) || c.Mode != "" && !slices.Contains(Modes, c.Mode) || c.Wait != "" && !slices.Contains(Waits, c.Wait) {
		return c, &RefusedError{fmt.Sprintf("release %s does not know all of %s %s %s", s.Release, c.Op, c.Mode, c.Wait)}
	}
	c, err := c.WithDefaults()
	if err == nil {
		err = s.Device.CheckSize(c.Size, MaxSize)
	}
	if err != nil {
		return c, &RefusedError{err.Error()}
	}
	if bad := s.Rules.differ(&c); len(bad) > 0 {
		return c, &RefusedError{"the two ends have different settings: " + strings.Join(bad, "; ")}
	}
	limit := s.MaxMemory
	if limit == 0 {
		limit = 1 << 30
	}
	if need := c.memory(); need > limit {
		return c, &RefusedError{fmt.Sprintf("that takes %s of memory here, and --max-memory is %s", FormatSize(need), FormatSize(limit))}
	}
	return c, nil
}

// measure is the server's part of one case. began says that messages went.
func (s *Server) measure(ctx context.Context, ctl *control, in *setup) (began bool, err error) {
	c, err := s.check(in.Case)
	if err != nil {
		return false, err
	}
	if c.Op != RPC && len(in.Ends) != c.QPs {
		return false, &RefusedError{fmt.Sprintf("%d queue pairs were described, not %d", len(in.Ends), c.QPs)}
	}
	in.Case = c
	var like verbs.GID
	if len(in.Ends) > 0 {
		like = in.Ends[0].GID
	}
	gid, err := s.Device.SelectGID(endpoint.LocalIP(ctl.conn), like)
	if err != nil {
		return false, endpoint.Step("gid", err)
	}
	hard, kill := context.WithCancelCause(ctx)
	defer kill(nil)
	answer := ready{Host: hostOf(s.Device, gid, s.Release)}
	w := newWork(c)
	defer func() {
		if cerr := w.close(); err == nil {
			err = cerr
		}
	}()
	if c.Op == RPC {
		srv, err := serveRPC(hard, s.Device, gid, &c, &answer)
		if err != nil {
			return false, err
		}
		defer srv.close()
	} else {
		if w.g, err = newGroup(s.Device, c, gid); err != nil {
			return false, err
		}
		if err := w.g.connect(in.Ends); err != nil {
			return false, err
		}
		answer.Ends = w.g.ends()
	}
	if err := ctl.send(message{Ready: &answer}); err != nil {
		return false, err
	}
	if m, err := ctl.next(ctx, stepTime); err != nil {
		return false, err
	} else if !m.Start {
		return false, &PeerError{"a message that is out of turn"}
	}
	defer context.AfterFunc(ctl.gone, func() { kill(context.Cause(ctl.gone)) })()
	defer watch(s.Device, kill)()
	return true, s.play(hard, kill, ctl, w)
}

// play goes on until the client says stop.
func (s *Server) play(hard context.Context, kill context.CancelCauseFunc, ctl *control, w *work) error {
	soft, finish := context.WithCancel(context.Background())
	defer finish()
	before, start := cpuNow(), time.Now()
	w.began.Store(&start)
	finished := make(chan error, 1)
	var d done
	switch {
	case w.c.Bidirectional:
		go func() {
			err := w.send(soft, hard)
			d.Seconds = time.Since(start).Seconds()
			finished <- err
			close(finished)
		}()
		defer func() {
			kill(errHungUp) // in order, there is nothing left to end
			for range finished {
			}
		}()
	case w.g != nil:
		w.receive(hard)
	}
	// A lane that failed is noticed at once: the client waits for what never comes.
	stopped := make(chan struct{})
	defer close(stopped)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stopped:
				return
			case <-tick.C:
				if err := w.failed(); err != nil {
					kill(err)
					return
				}
			}
		}
	}()
	m, err := ctl.next(hard, maxTime)
	if err != nil {
		return err
	}
	if m.Stop == nil {
		return &PeerError{"a message that is out of turn"}
	}
	if w.c.Count == 0 || m.Stop.Early {
		finish()
	}
	if w.c.Bidirectional {
		if err := <-finished; err != nil { // d.Seconds is there then
			return err
		}
	}
	if w.c.Op.receives() {
		if err := w.await(hard, m.Stop.Sent); err != nil {
			return err
		}
		d.Received = w.received()
	}
	d.CPU = cpuNow().since(before)
	if w.g != nil {
		d.Sent = w.sent()
	}
	return ctl.send(message{Done: &d})
}

// await waits until so many messages have been received: their sender has
// completions for them, so they are there, or soon will be.
func (w *work) await(ctx context.Context, n int64) error {
	for end := time.Now().Add(stepTime); w.received() < n; {
		if err := w.failed(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d messages were received, of %d that were acknowledged", w.received(), n)
		}
		time.Sleep(200 * time.Microsecond)
	}
	return nil
}
