package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zrdma/zrdma/qp"
)

// Handler answers calls of a method. It may block: each call that is handled has a
// goroutine of its own meanwhile. An error that is
// no *Error goes to the caller with the code Unknown. A handler that returns nil
// without Reply has answered with nothing. c and what it lends are the handler's
// until it returns.
type Handler func(ctx context.Context, c *ServerCall) error

// ServerInterceptor is put around every call that a server handles.
type ServerInterceptor func(ctx context.Context, c *ServerCall, next Handler) error

// ServerConfig configures a Server. The zero value is good.
type ServerConfig struct {
	Config // what is for clients only is ignored

	// MaxBytes bounds the bulk data of calls being handled, over all sessions; a
	// call beyond it is refused before its data moves. 0: 256 MiB.
	MaxBytes int64
	// MaxSessions bounds the sessions; 0: 4096.
	MaxSessions int
	// MaxDataQPs bounds the queue pairs for bulk data of one session: a client gets
	// as many as it wants, up to that. 0: 8.
	MaxDataQPs int
	// SharedReceives makes all sessions receive into one queue of so many slots
	// (qp.SharedReceive), of which each queue pair is promised Config.Window and 8
	// more; a session that does not fit is refused. 0: each has a queue of its own.
	SharedReceives int

	// OnHandled hears of every call that a handler has seen, when nothing of it goes
	// on any more, how long its stages took. It must not block.
	OnHandled func(*Stages)

	Interceptors []ServerInterceptor // the first is the outermost
}

type method struct {
	name  string
	h     Handler
	speed estimate
}

// Server answers calls. Register handlers with Handle, then Serve.
type Server struct {
	cfg    ServerConfig
	nics   []*nic
	bootID uint64

	mu        sync.Mutex
	methods   map[uint32]*method // guarded by mu until serving; read-only then
	sessions  map[*serverSession]struct{}
	listeners map[interface{ Close() error }]struct{}
	serving   bool
	closed    bool
	gone      chan struct{} // closed when Close is done
	closeErr  error         // written before gone is closed
	draining  bool
	life      context.Context
	die       context.CancelFunc
	wg        sync.WaitGroup // sessions, calls, workers, accept loops
	workers   workers
	greeting  chan struct{} // of handshakes under way
	bytes     budget
	stats     serverStats
}

// NewServer makes a server.
func NewServer(cfg ServerConfig) (*Server, error) {
	var err error
	if cfg.Config, err = cfg.Config.withDefaults(); err != nil {
		return nil, err
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 256 << 20
	}
	if cfg.MaxSessions == 0 {
		cfg.MaxSessions = 4096
	}
	if cfg.MaxDataQPs == 0 {
		cfg.MaxDataQPs = 8
	}
	if cfg.MaxBytes < 0 || cfg.MaxSessions < 0 || cfg.SharedReceives < 0 || cfg.MaxDataQPs < 0 || cfg.MaxDataQPs > maxData {
		return nil, fmt.Errorf("rpc: ServerConfig: MaxBytes, MaxSessions and SharedReceives must not be negative, MaxDataQPs 1 to %d", maxData)
	}
	nics, err := openNICs(&cfg.Config, cfg.SharedReceives)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, nics: nics, bootID: process(), methods: map[uint32]*method{}, sessions: map[*serverSession]struct{}{}, gone: make(chan struct{}), greeting: make(chan struct{}, maxGreeting),
		listeners: map[interface{ Close() error }]struct{}{}}
	s.bytes.left.Store(cfg.MaxBytes)
	s.workers.wg = &s.wg
	s.life, s.die = context.WithCancel(context.Background())
	return s, nil
}

// Handle registers the handler of a method, before the first Serve. It panics for a
// name that is taken, empty, or whose number on the wire another name has: choose
// another one.
func (s *Server) Handle(name string, h Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := MethodID(name)
	switch m := s.methods[id]; {
	case name == "" || h == nil:
		panic("rpc: Handle without a name or a handler")
	case s.serving:
		panic("rpc: Handle after Serve")
	case m != nil && m.name == name:
		panic("rpc: two handlers of " + name)
	case m != nil:
		panic(fmt.Sprintf("rpc: %q and %q have the same number on the wire, %#x; rename one", m.name, name, id))
	}
	for i := len(s.cfg.Interceptors) - 1; i >= 0; i-- {
		f, next := s.cfg.Interceptors[i], h
		h = func(ctx context.Context, c *ServerCall) error { return f(ctx, c, next) }
	}
	s.methods[id] = &method{name: name, h: h}
}

// Listen binds addr, host:port, in the way that Config chooses: rdma_cm, or TCP
// with TLS. Serve it. Port 0 chooses one. With Config.Rails and rdma_cm several
// addresses, with commas between, are those of Device, of Rails[0], and so on:
// clients that name them too can begin a session on any.
func (s *Server) Listen(ctx context.Context, addr string) (*Listener, error) {
	switch {
	case s.cfg.TLS != nil:
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("rpc: %w", err)
		}
		return &Listener{s: s, tcp: l, tls: s.cfg.TLS}, nil
	case s.cfg.PlainTCP:
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("rpc: %w", err)
		}
		return &Listener{s: s, tcp: l}, nil
	}
	l := &Listener{s: s}
	for i, a := range strings.Split(addr, ",") {
		if i == len(s.nics) {
			_ = l.Close()
			return nil, fmt.Errorf("rpc: listen on %s: more addresses than the %d devices of Config.Device and Rails", addr, len(s.nics))
		}
		cm, err := l.listenCM(ctx, s.nics[i], strings.TrimSpace(a))
		if err != nil {
			_ = l.Close()
			return nil, err
		}
		l.cm = append(l.cm, cm)
	}
	return l, nil
}

// Listener is where a server accepts sessions.
type Listener struct {
	s   *Server
	tcp net.Listener
	tls *tls.Config
	cm  []*qp.Listener // on the devices of the server
	// The control queue pair of a session begins before the session is known.
	pending sync.Map // *qp.Conn to *serverSession
}

func (l *Listener) listenCM(ctx context.Context, n *nic, addr string) (*qp.Listener, error) {
	return n.d.Listen(ctx, addr, l.s.cfg.conn(n, func(c *qp.Conn, m qp.Message) {
		l.of(c).onMessage(c, m)
	}, func(c *qp.Conn, err error) {
		if v, ok := l.pending.LoadAndDelete(c); ok {
			v.(*serverSession).onEnd(c, err)
		} // else accept sees that it has ended
	}))
}

// of finds the session of a control queue pair; the first message makes it.
func (l *Listener) of(c *qp.Conn) *serverSession {
	if v, ok := l.pending.Load(c); ok {
		return v.(*serverSession)
	}
	v, _ := l.pending.LoadOrStore(c, newServerSession(l.s, l.s.device(c)))
	return v.(*serverSession)
}

// device is the number of the device that a queue pair is on.
func (s *Server) device(c *qp.Conn) int {
	return slices.IndexFunc(s.nics, func(n *nic) bool { return n.d == c.Device() })
}

// deviceFor is the number of the device that has the address which a stream came
// to; else the first.
func (s *Server) deviceFor(nc net.Conn) int {
	if a, ok := nc.LocalAddr().(*net.TCPAddr); ok {
		ip := a.AddrPort().Addr().Unmap()
		for i, n := range s.nics {
			if _, err := n.d.Context().SelectGID(n.d.Port(), ip); err == nil {
				return i
			}
		}
	}
	return 0
}

// Addr is the address listened on, host:port; several with commas between, as
// Listen takes them.
func (l *Listener) Addr() string {
	if l.tcp != nil {
		return l.tcp.Addr().String()
	}
	var out []string
	for _, cm := range l.cm {
		a := cm.Addr()
		if a.Addr().IsUnspecified() {
			if ip := firstAddr(l.s.nics[len(out)].d); ip.IsValid() {
				a = netip.AddrPortFrom(ip, a.Port())
			}
		}
		out = append(out, a.String())
	}
	return strings.Join(out, ",")
}

func firstAddr(d *qp.Device) netip.Addr {
	if g, err := d.Context().SelectGID(d.Port(), netip.Addr{}); err == nil {
		return g.GID.Addr()
	}
	return netip.Addr{}
}

// Close stops accepting; sessions stay.
func (l *Listener) Close() error {
	l.s.mu.Lock()
	delete(l.s.listeners, l)
	l.s.mu.Unlock()
	if l.tcp != nil {
		return l.tcp.Close()
	}
	var errs []error
	for _, cm := range l.cm {
		errs = append(errs, cm.Close())
	}
	return errors.Join(errs...)
}

// Serve accepts sessions on l until it is closed, and closes it. It returns nil
// when the server or the listener was closed.
func (s *Server) Serve(l *Listener) error {
	s.mu.Lock()
	if s.closed || s.draining {
		s.mu.Unlock()
		return l.Close()
	}
	s.serving = true
	s.listeners[l] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	var others sync.WaitGroup
	defer others.Wait()
	for _, cm := range l.cm {
		for range acceptors {
			others.Go(func() { _ = s.serve(func() error { return l.acceptCM(s.life, cm) }) })
		}
	}
	if l.tcp == nil {
		return nil
	}
	return s.serve(l.acceptTCP)
}

// acceptors is how many peers may be in the middle of connecting by rdma_cm: one
// that never says that it is ready holds up one of them, for ten seconds.
const acceptors = 16

func (s *Server) serve(accept func() error) error {
	for {
		err := accept()
		switch {
		case err == nil:
		case s.life.Err() != nil, errors.Is(err, net.ErrClosed):
			return nil
		default:
			s.cfg.Logger.Warn("rpc: accept", "err", err)
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func (l *Listener) acceptCM(ctx context.Context, cm *qp.Listener) error {
	c, err := cm.Accept(ctx)
	if err != nil {
		return err
	}
	ss := l.of(c)
	if c.Err() != nil { // its OnEnd may have been before there was a session
		l.pending.Delete(c)
		ss.session.end(c.Err())
		_ = c.Close()
		return nil
	}
	if !l.s.mayGreet() {
		l.pending.Delete(c)
		ss.session.end(ErrClosed)
		_ = c.Close()
		return nil
	}
	l.s.start(ss, func(context.Context) (*qp.Conn, error) { return c, nil })
	return nil
}

func (l *Listener) acceptTCP() error {
	nc, err := l.tcp.Accept()
	if err != nil {
		return err
	}
	if !l.s.mayGreet() {
		return nc.Close()
	}
	ss := newServerSession(l.s, l.s.deviceFor(nc))
	l.s.start(ss, func(ctx context.Context) (*qp.Conn, error) {
		d, conf := ss.nic.d, l.s.cfg.conn(ss.nic, ss.onMessage, ss.onEnd)
		if l.tls != nil {
			return d.Exchange(ctx, tls.Server(nc, l.tls), conf)
		}
		return d.ExchangeUnsafe(ctx, nc, conf)
	})
	return nil
}

// maxGreeting is how many peers may be in their handshake. Each has receives of its
// own from the pool already, and has not said who it is.
const maxGreeting = 64

// mayGreet waits until there is room for another handshake; false: the server ends.
func (s *Server) mayGreet() bool {
	select {
	case s.greeting <- struct{}{}:
		return true
	case <-s.life.Done():
		return false
	}
}

// start does the handshake of a session, in a goroutine: a slow peer holds up
// nobody. mayGreet came before.
func (s *Server) start(ss *serverSession, control func(context.Context) (*qp.Conn, error)) {
	s.mu.Lock()
	refuse := s.closed || s.draining || len(s.sessions) >= s.cfg.MaxSessions
	s.wg.Add(2) // the handshake, and the session until it is closed: gone ends that
	if !ss.begin() {
		s.wg.Done() // it ended before it began
	} else if !refuse {
		s.sessions[ss] = struct{}{}
	}
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		defer func() { <-s.greeting }()
		ctx, cancel := context.WithTimeout(s.life, s.cfg.DialTimeout)
		defer cancel()
		c, err := control(ctx)
		if err == nil {
			if err = ss.adopt(c, true); err == nil && refuse {
				err = &Error{Code: ResourceExhausted, Method: "hello", Message: "the server is shutting down, or has as many sessions as it takes"}
				ss.refuse(err)
			}
			if err == nil {
				err = ss.welcome(ctx)
			}
		}
		if err != nil {
			if s.life.Err() == nil {
				s.cfg.Logger.Warn("rpc: a session did not begin", "peer", ss.peerName(), "err", err)
			}
			ss.session.end(err)
			return
		}
		s.stats.sessions.Add(1)
		s.mu.Lock()
		drain := s.draining
		s.mu.Unlock()
		if drain {
			ss.tell(c, &header{typ: msgGoAway}, nil)
		}
	}()
}

// Shutdown drains: it stops accepting, tells every client to go elsewhere, waits
// for the calls under way, and closes. When ctx ends first it closes at once.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	for l := range s.listeners {
		go l.Close()
	}
	var l []*serverSession
	for ss := range s.sessions {
		l = append(l, ss)
	}
	s.mu.Unlock()
	for _, ss := range l {
		if c := ss.control(); c != nil && ss.open.Load() { // start tells the others
			ss.tell(c, &header{typ: msgGoAway}, nil)
		}
	}
	err := s.idle(ctx)
	return errors.Join(err, s.Close())
}

// idle waits until no session is left.
func (s *Server) idle(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		s.mu.Lock()
		n := len(s.sessions)
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close ends every session and waits for the handlers, whose contexts end; so it
// must not be called by one. Another Close, also Shutdown's, waits for the first.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.gone
		return s.closeErr
	}
	s.closed = true
	var ls []*Listener
	for l := range s.listeners {
		ls = append(ls, l.(*Listener))
	}
	var ss []*serverSession
	for x := range s.sessions {
		ss = append(ss, x)
	}
	s.mu.Unlock()
	s.die()
	for _, l := range ls {
		_ = l.Close()
	}
	for _, x := range ss {
		x.session.end(ErrClosed)
	}
	s.workers.close()
	s.wg.Wait()
	s.closeErr = closeNICs(s.nics)
	close(s.gone)
	return s.closeErr
}
