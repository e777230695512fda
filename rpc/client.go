package rpc

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// Client calls one server. Its methods may be called from any goroutine.
type Client struct {
	cfg     Config
	addr    string
	d       *qp.Device // the first of nics
	nics    []*nic
	bootID  uint64
	token   atomic.Uint64
	invoke  Invoker // through the interceptors; nil: there are none
	replies sync.Pool
	gate    gate // calls

	mu       sync.Mutex
	cur      *clientSession // guarded by mu, as all below
	dialing  bool
	changed  chan struct{} // closed and replaced whenever cur or lastErr changes
	attempt  uint64        // dials that have ended
	lastErr  error         // of the last dial
	closed   bool
	gone     chan struct{} // closed when Close is done
	closeErr error         // written before gone is closed
	gen      uint32
	way      int    // which of its addresses is dialled
	had      bool   // a session was made
	server   uint64 // boot id of the server

	life context.Context
	die  context.CancelFunc
	wg   sync.WaitGroup // sessions being closed, dials, fences

	stats clientStats
	rails []railCounts // by device
}

// process tells this process from one that had its address before.
var process = sync.OnceValue(func() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:]) | 1
})

// Dial connects to a server, host:port. The first connection is made before it
// returns; later ones when they are needed. With Config.Rails addr may be several
// addresses with commas between: those of the server by way of Device, of Rails[0],
// and so on. When one fails the next is tried.
func Dial(ctx context.Context, addr string, cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	nics, err := openNICs(&cfg, 0)
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, addr: addr, d: nics[0].d, nics: nics, bootID: process(), changed: make(chan struct{}), gone: make(chan struct{})}
	c.rails = make([]railCounts, len(nics))
	c.life, c.die = context.WithCancel(context.Background())
	c.gate.out = make(chan struct{})
	if len(cfg.ClientInterceptors) > 0 {
		c.invoke = chain(cfg.ClientInterceptors, c.call)
	}
	if _, err := c.session(ctx, false); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// session is a live session, dialled if there is none. With wait it goes on
// trying until ctx ends, else one failed attempt is the answer.
func (c *Client) session(ctx context.Context, wait bool) (*clientSession, error) {
	c.mu.Lock()
	if s := c.cur; s != nil { // the usual case
		c.mu.Unlock()
		return s, nil
	}
	start := c.attempt
	for {
		if c.closed {
			c.mu.Unlock()
			return nil, fmt.Errorf("rpc: client of %s: %w", c.addr, ErrClosed)
		}
		if s := c.cur; s != nil {
			c.mu.Unlock()
			return s, nil
		}
		if c.cfg.NoReconnect && c.had {
			c.mu.Unlock()
			return nil, fmt.Errorf("%w: %s: the connection ended and Config.NoReconnect is set", ErrUnavailable, c.addr)
		}
		if (!wait || c.cfg.NoReconnect) && c.attempt > start && c.lastErr != nil {
			err := c.lastErr
			c.mu.Unlock()
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if !c.dialing {
			c.dialing = true
			c.wg.Add(1)
			go c.redial()
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, c.addr, ctx.Err())
		}
		c.mu.Lock()
	}
}

// dials bounds the connections that a process makes at a time.
var dials = make(chan struct{}, 16)

// redial makes a session, off the path of requests, until it has one or nobody
// can want it any more.
func (c *Client) redial() {
	defer c.wg.Done()
	backoff := 10 * time.Millisecond
	for {
		s, err := c.dial()
		c.mu.Lock()
		c.attempt++
		c.lastErr = err
		switch {
		case err != nil:
			c.way++
		case c.closed:
			defer s.session.end(ErrClosed)
		case s.usable(): // it may have ended already, and then nobody would say so again
			c.cur, c.had = s, true
		default:
			c.lastErr = errGoAway
			if e := s.session.err(); e != nil {
				c.lastErr = e
			}
			err = c.lastErr
		}
		stop := err == nil || c.closed || c.cfg.NoReconnect
		if stop {
			c.dialing = false
		}
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
		if stop {
			return
		}
		c.cfg.Logger.Debug("rpc: dial failed", "peer", c.addr, "err", err, "next", backoff)
		pause := time.NewTimer(backoff/2 + mrand.N(backoff))
		select {
		case <-pause.C:
		case <-c.life.Done():
			pause.Stop()
		}
		backoff = min(2*backoff, c.cfg.MaxBackoff)
	}
}

func (c *Client) dial() (_ *clientSession, err error) {
	select {
	case dials <- struct{}{}:
		defer func() { <-dials }()
	case <-c.life.Done():
		return nil, ErrClosed
	}
	ctx, cancel := context.WithTimeout(c.life, c.cfg.DialTimeout)
	defer cancel()
	c.mu.Lock()
	c.gen++
	gen := c.gen
	c.mu.Unlock()
	cost := c.cfg.memory()
	if err := memory.reserve(cost); err != nil {
		return nil, fmt.Errorf("rpc: dial %s: %w", c.addr, err)
	}
	first, addr := c.route()
	d := c.nics[first].d
	cs := newClientSession(c, gen, first, addr)
	cs.idle.add(cs, cost)
	s := cs.session
	conf := c.cfg.conn(s.nic, s.onMessage, s.onEnd)
	var nc net.Conn
	var control *qp.Conn
	switch {
	case c.cfg.TLS != nil:
		nc, err = (&tls.Dialer{Config: c.cfg.TLS}).DialContext(ctx, "tcp", addr)
		if err == nil {
			control, err = d.Exchange(ctx, nc.(*tls.Conn), conf)
		}
	case c.cfg.PlainTCP:
		nc, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			control, err = d.ExchangeUnsafe(ctx, nc, conf)
		}
	default:
		control, err = d.Dial(ctx, addr, conf)
	}
	if err == nil {
		err = s.adopt(control, true)
	}
	if err == nil {
		err = s.greet(ctx)
	}
	if err != nil {
		s.end(err)
		s.close()
		return nil, fmt.Errorf("rpc: dial %s: %w", c.addr, authentication(err))
	}
	s.open.Store(true)
	cs.limit(int(min(uint32(c.cfg.MaxCalls), s.remote.calls)))
	c.mu.Lock()
	if c.server != 0 && c.server != s.remote.bootID {
		c.stats.restarts.Add(1)
	}
	c.server = s.remote.bootID
	c.mu.Unlock()
	c.stats.sessions.Add(1)
	if s.multi() {
		c.wg.Add(1) // the dial holds one too
		go cs.keepRails()
	}
	return cs, nil
}

// lose forgets a session that ended, or that takes no new calls.
func (c *Client) lose(cs *clientSession) {
	c.mu.Lock()
	if c.cur == cs {
		c.cur = nil
		close(c.changed)
		c.changed = make(chan struct{})
	}
	c.mu.Unlock()
}

// Close ends the client. Calls under way end with ErrClosed or ErrIndeterminate;
// memory of theirs has come back when it returns.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.gone
		return c.closeErr
	}
	c.closed = true
	cs := c.cur
	c.cur = nil
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	c.die()
	if cs != nil {
		cs.session.tell(cs.control(), &header{typ: msgClose}, nil)
		cs.session.end(ErrClosed)
	}
	c.gate.shut() // calls see that the session has ended, or that the client is closed
	c.wg.Wait()
	c.closeErr = closeNICs(c.nics)
	close(c.gone)
	return c.closeErr
}

// closeGranter waits for the grants that were given up: their fences go on in the
// background, each within a few times GranterConfig.Grace.
func closeGranter(g *mr.Granter) error {
	deadline := time.Now().Add(10 * time.Second)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		err := g.Close()
		if !errors.Is(err, mr.ErrInUse) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}

var shared struct {
	sync.Mutex
	d *qp.Device
}

// defaultDevice is opened once for all who name none, and stays open.
func defaultDevice() (*qp.Device, error) {
	shared.Lock()
	defer shared.Unlock()
	if shared.d == nil {
		d, err := qp.Open(qp.DeviceConfig{})
		if err != nil {
			return nil, err
		}
		shared.d = d
	}
	return shared.d, nil
}

var errGoAway = errors.New("rpc: the server is shutting down")
