package compare

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Server has the blocks and serves them to one client after the other.
type Server struct {
	Device  string               // the RDMA device; see Config.Device
	Dir     string               // of the file, for jobs with Source File; "": os.TempDir()
	MaxData int64                // bytes of blocks that a client may ask for; 0: 1 GiB
	Log     func(string, ...any) // nil: nobody is told
	Once    bool                 // end after the first client

	tamper func(*source) // tests change the blocks after their checksums were taken

	mu      sync.Mutex
	pending map[[tokenLen]byte]chan *net.TCPConn // guarded by mu
	client  string                               // guarded by mu; who is being served
}

const defaultMaxData = 1 << 30

func (s *Server) log(format string, a ...any) {
	if s.Log != nil {
		s.Log(format, a...)
	}
}

// Listen listens for Serve. Not with multipath TCP, which Go's listeners have by
// default: its sockets have no zero-copy send.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	return c.Listen(ctx, "tcp", addr)
}

// Serve serves clients that come to l, of Listen, until ctx ends, and closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.pending = map[[tokenLen]byte]chan *net.TCPConn{}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if c != nil {
				c.Close()
			}
			return nil
		}
		if err != nil {
			return err
		}
		t, ok := c.(*net.TCPConn)
		if !ok {
			c.Close()
			return fmt.Errorf("a listener of %T, not TCP", c)
		}
		wg.Go(func() {
			if s.accept(ctx, t) && s.Once {
				cancel()
			}
		})
	}
}

// accept finds out what a connection is for. It reports whether a client was
// served over it.
func (s *Server) accept(ctx context.Context, c *net.TCPConn) (served bool) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	_ = c.SetDeadline(time.Now().Add(patience))
	p, err := readPreamble(c)
	if err != nil {
		s.log("%v: %v", c.RemoteAddr(), err)
		c.Close()
		return false
	}
	_ = c.SetDeadline(time.Time{})
	if p.kind == forData {
		s.mu.Lock()
		defer s.mu.Unlock()
		ch := s.pending[p.token]
		delete(s.pending, p.token)
		if ch == nil {
			s.log("%v: a data connection that nobody waits for", c.RemoteAddr())
			c.Close()
			return false
		}
		stop()  // the run has it now
		ch <- c // there is room for one, and only one gets here
		return false
	}
	defer c.Close()
	who := c.RemoteAddr().String()
	ctl := newControl(c)
	s.mu.Lock()
	other := s.client
	if other == "" {
		s.client = who
	}
	s.mu.Unlock()
	if other != "" {
		_ = ctl.send(message{Type: msgBusy, Why: "it serves " + other + ", and two at a time would disturb each other; try again later"})
		return false
	}
	defer func() {
		s.mu.Lock()
		s.client = ""
		s.mu.Unlock()
	}()
	s.log("%s: connected", who)
	if err := s.session(ctx, ctl); err != nil && ctx.Err() == nil {
		s.log("%s: %v", who, err)
	} else {
		s.log("%s: done", who)
	}
	return true
}

func (s *Server) session(ctx context.Context, ctl *control) error {
	m, err := ctl.receive(patience)
	if err != nil {
		return err
	}
	if m.Type != msgHello {
		return fmt.Errorf("it said %q where %q was due", m.Type, msgHello)
	}
	device := DeviceName(s.Device) // for all runs: when it goes away there is no other in its place
	if err := ctl.send(message{Type: msgHello, Protocol: protocol, Host: thisHost(device)}); err != nil {
		return err
	}
	if m.Protocol != protocol {
		return fmt.Errorf("it speaks version %d of the protocol, this is version %d", m.Protocol, protocol)
	}
	var src *source
	defer func() { src.close() }()
	for {
		// A client that has nothing to say must not keep others out.
		m, err := ctl.receive(idle)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.Type != msgRun || m.Job == nil {
			return fmt.Errorf("it said %q where %q was due", m.Type, msgRun)
		}
		if src, err = s.run(ctx, ctl, m, src, device); err != nil {
			return err
		}
	}
}

// prepare has the blocks ready and looks whether this machine could.
func (s *Server) prepare(m message, old *source) (w way, src *source, err error) {
	w, ok := findWay(m.Way)
	if !ok {
		return w, old, fmt.Errorf("this version of zrdma does not know %q", m.Way)
	}
	if w.can != nil && !w.atClient {
		if err := w.can(); err != nil {
			return w, old, err
		}
	}
	if err := m.Job.Check(); err != nil {
		return w, old, err
	}
	limit := s.MaxData
	if limit == 0 {
		limit = defaultMaxData
	}
	if m.Job.Data > limit {
		return w, old, fmt.Errorf("it keeps %s of blocks at most, not %s; --max-data raises that", Size(limit), Size(m.Job.Data))
	}
	if old.matches(*m.Job) {
		return w, old, nil
	}
	old.close()
	dir := s.Dir
	if dir == "" {
		dir = os.TempDir()
	}
	src, err = openSource(*m.Job, dir)
	if err == nil && s.tamper != nil {
		s.tamper(src)
	}
	return w, src, err
}

// run is one run of a way. An error ends the session; what went wrong with the way
// has been told to the client.
func (s *Server) run(ctx context.Context, ctl *control, m message, old *source, device string) (src *source, err error) {
	w, src, err := s.prepare(m, old)
	if err != nil {
		return src, ctl.send(message{Type: msgCannot, Why: err.Error()})
	}
	var token [tokenLen]byte
	_, _ = rand.Read(token[:])
	ch := make(chan *net.TCPConn, 1)
	s.mu.Lock()
	s.pending[token] = ch
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.pending, token)
		select {
		case c := <-ch: // it came when nobody waited any more
			c.Close()
		default:
		}
	}()
	if err := ctl.send(message{Type: msgGo, Token: token[:], Sums: src.sums}); err != nil {
		return src, err
	}
	var data *net.TCPConn
	select {
	case data = <-ch:
	case <-ctx.Done():
		return src, ctx.Err()
	case <-time.After(patience):
		return src, errors.New("its data connection did not come")
	}
	defer data.Close()
	r := &serverRun{ctl: ctl, way: w, job: *m.Job}
	return src, r.do(ctx, data, src, device)
}
