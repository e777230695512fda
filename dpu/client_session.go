package dpu

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/dpu/internal/wire"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
	"github.com/zrdma/zrdma/verbs"
)

// hostSession is an agent at the host: a control queue pair and one for data.
type hostSession struct {
	c        *Client
	epoch    uint32
	ctl      *qp.Conn
	data     *qp.Conn
	maxBytes uint64
	maxBlock uint32

	ring      []byte // the agent writes it, an entry is read once it was announced
	ringReg   *mr.Region
	ringGrant *mr.Grant
	head      uint64 // number of the next entry; the engine's goroutine only

	queue chan *hostOp  // to be posted
	free  chan struct{} // a token for each operation that the ring has room for
	heard atomic.Int64  // when the agent was last heard of, UnixNano

	lost  chan struct{} // closed when the agent was given up
	once  sync.Once
	cause error // written before lost is closed
	gave  time.Time

	wg sync.WaitGroup // operations, and goroutines of the session

	mu       sync.Mutex
	ops      map[uint64]*hostOp // guarded by mu, as all below
	busy     int                // operations that have not left
	writes   int                // of them, those that change the store
	next     uint64
	draining bool // nothing new
	ending   bool // the host wants it so
	over     bool // lost or draining to the end: no operation begins any more
}

// hostOp is an operation that the agent has.
type hostOp struct {
	d      wire.Descriptor
	status chan wire.Status // one
	cancel bool             // send a cancel, and not the descriptor
}

func newHostSession(ctx context.Context, c *Client, epoch uint32) (_ *hostSession, err error) {
	s := &hostSession{c: c, epoch: epoch, lost: make(chan struct{}), ops: map[uint64]*hostOp{}}
	defer func() {
		if err != nil {
			s.giveUp(err)
			err = errors.Join(err, s.release())
		}
	}()
	cfg := qp.Config{SendDepth: 32, RecvDepth: 16, MaxMessage: 1024, Logger: c.cfg.Logger}
	if s.ctl, err = c.cfg.Device.Dial(ctx, c.cfg.Agent, cfg); err != nil {
		return nil, err
	}
	// The agents before this one first: what they still have of this host's writes is
	// not to be done after what this one gets.
	if err := c.fence(ctx, epoch); err != nil {
		return nil, err
	}
	cfg = qp.Config{SendDepth: 4*c.cfg.Depth + 64, RecvDepth: 64, MaxMessage: 256, MaxRdAtomic: 16, Logger: c.cfg.Logger,
		OnMessage: s.onData, OnEnd: func(_ *qp.Conn, err error) { s.giveUp(err) }}
	prepared, err := c.cfg.Device.Prepare(netip.Addr{}, cfg)
	if err != nil {
		return nil, err
	}
	defer prepared.Close()
	if err := s.greet(ctx, prepared); err != nil {
		return nil, err
	}
	return s, nil
}

// greet is the host's side of the handshake.
func (s *hostSession) greet(ctx context.Context, prepared *qp.Prepared) error {
	c := s.c
	hello := wire.HelloBody{Writer: c.writer, Slots: uint32(c.cfg.Depth), Lease: uint32(c.cfg.Lease / time.Microsecond), Data: prepared.Local(), Tenant: c.cfg.Tenant}
	_, _ = rand.Read(hello.Nonce[:])
	said := hello.Append(nil)
	if err := tell(ctx, s.ctl, wire.Header{Type: wire.Hello, Epoch: s.epoch}, said); err != nil {
		return err
	}
	h, welcome, err := hear(ctx, s.ctl, wire.Welcome)
	if err != nil {
		return err
	}
	var w wire.WelcomeBody
	if err := w.Decode(welcome); err != nil {
		return err
	}
	if h.Epoch != s.epoch || w.Slots > uint32(c.cfg.Depth) {
		return fmt.Errorf("%w: a welcome of epoch %d with %d operations; %d and %d were asked for", wire.ErrMalformed, h.Epoch, w.Slots, s.epoch, c.cfg.Depth)
	}
	if !wire.Same(w.Proof, wire.Sign(c.cfg.Secret, "agent", said, welcome)) {
		return &rpc.Error{Code: rpc.Unauthenticated, Method: "agent", Message: "the agent does not know ClientConfig.Secret"}
	}
	s.maxBytes, s.maxBlock = w.MaxBytes, w.MaxBlock
	s.heard.Store(time.Now().UnixNano())
	slots := int(w.Slots)
	s.queue = make(chan *hostOp, 2*slots)
	s.free = make(chan struct{}, slots)
	for range slots {
		s.free <- struct{}{}
	}
	if s.data, err = prepared.Connect(w.Data); err != nil {
		return err
	}
	s.ring = make([]byte, slots*wire.EntryLen)
	if s.ringReg, err = mr.Register(s.ring, mr.DefaultAccess, c.cfg.Device.PD()); err != nil {
		return err
	}
	b, err := s.ringReg.Buf(0, len(s.ring))
	if err != nil {
		return err
	}
	if s.ringGrant, err = c.granter.Grant(ctx, s.data, b, mr.DeviceWrites); err != nil {
		_ = b.Release()
		return err
	}
	p := wire.ProofBody{Proof: wire.Sign(c.cfg.Secret, "host", said, welcome), Ring: s.ringGrant.Remote()}
	if err := tell(ctx, s.ctl, wire.Header{Type: wire.Proof, Epoch: s.epoch}, p.Append(nil)); err != nil {
		return err
	}
	_, _, err = hear(ctx, s.ctl, wire.Ready)
	return err
}

// serve runs the session until it is over and everything of it is back.
func (s *hostSession) serve() {
	s.wg.Add(3)
	go s.send()
	go s.listen()
	go s.beat()
	<-s.lost
	s.c.retired(s, s.cause)
	// The queue pair first: from then on the agent reaches nothing by it, whether it
	// hangs or writes late. Each operation still takes its own memory back, which is
	// what proves it.
	if until := s.c.unfenced; until != nil {
		<-until
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), greetTime)
		if _, err := s.data.Kill(ctx); err != nil {
			s.c.cfg.Logger.Warn("dpu: the queue pair to the agent does not end", "agent", s.c.cfg.Agent, "err", err)
		}
		cancel()
	}
	s.wg.Wait()
	took := time.Since(s.gave)
	if err := s.release(); err != nil {
		s.c.cfg.Logger.Error("dpu: what a session with an agent used is not free", "agent", s.c.cfg.Agent, "err", err)
	}
	if !errors.Is(s.cause, verbs.ErrClosed) {
		s.c.tell(Event{Kind: AgentLost, Epoch: s.epoch, Err: s.cause, Took: took})
	}
}

// release frees what the session has; no operation is under way.
func (s *hostSession) release() error {
	var errs []error
	ctx, cancel := context.WithTimeout(context.Background(), greetTime)
	defer cancel()
	if s.ringGrant != nil {
		b, err := s.ringGrant.Revoke(ctx)
		if err == nil {
			err = b.Release()
		}
		errs = append(errs, err)
	}
	if s.data != nil {
		errs = append(errs, s.data.Close())
	}
	if s.ctl != nil {
		errs = append(errs, s.ctl.Close())
	}
	if s.ringReg != nil {
		err := closeSoon(s.ringReg.Close)
		if errors.Is(err, verbs.ErrInUse) {
			// Its memory is pinned: were it dropped, the runtime would end the program.
			go closeInTheEnd(s.ringReg)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// closeInTheEnd tries until a grant that is fenced still has let the region go.
func closeInTheEnd(r *mr.Region) {
	for errors.Is(r.Close(), verbs.ErrInUse) {
		time.Sleep(time.Second)
	}
}

// giveUp says that the agent is lost. It does not block.
func (s *hostSession) giveUp(err error) {
	s.once.Do(func() {
		s.mu.Lock()
		if s.ending || s.draining && s.busy == 0 {
			err = verbs.ErrClosed
		}
		s.cause, s.gave = err, time.Now()
		s.over = true
		if s.writes > 0 {
			s.c.owe(s.epoch + 1)
		}
		s.mu.Unlock()
		close(s.lost)
	})
}

// quit ends the session in order: the agent is told.
func (s *hostSession) quit() {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	y := wire.ByeBody{Text: "the host ends"}
	_ = tell(ctx, s.ctl, wire.Header{Type: wire.Bye, Epoch: s.epoch}, y.Append(nil))
	s.giveUp(verbs.ErrClosed)
}

// drain takes nothing new and ends with the last operation.
func (s *hostSession) drain() {
	s.mu.Lock()
	s.draining = true
	last := s.busy == 0
	s.mu.Unlock()
	s.c.retired(s, nil)
	s.c.tell(Event{Kind: AgentDrains, Epoch: s.epoch})
	if last {
		s.giveUp(verbs.ErrClosed)
	}
}

// listen takes control messages.
func (s *hostSession) listen() {
	defer s.wg.Done()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.lost:
		case <-ctx.Done():
		}
		cancel()
	}()
	for {
		m, err := s.ctl.Recv(ctx)
		if err != nil {
			s.giveUp(err)
			return
		}
		p, err := m.Buf.Bytes()
		var h wire.Header
		var body []byte
		if err == nil {
			h, body, err = wire.Parse(p)
		}
		drain := false
		switch {
		case err != nil:
		case h.Type == wire.Bye:
			err = byeError(body)
			if e := (*rpc.Error)(nil); errors.As(err, &e) && e.Code == rpc.OK {
				drain, err = true, nil
			}
		case h.Type != wire.Beat:
			err = fmt.Errorf("%w: message %d from the agent", wire.ErrMalformed, h.Type)
		case h.Epoch == s.epoch:
			s.heard.Store(time.Now().UnixNano())
		}
		_ = m.Buf.Release()
		if err != nil {
			s.giveUp(err)
			return
		}
		if drain {
			s.drain()
		}
	}
}

// beat tells the agent that the host is there, and gives the agent up when it is
// silent for as long as the lease.
func (s *hostSession) beat() {
	defer s.wg.Done()
	lease := s.c.cfg.Lease
	tick := time.NewTicker(max(lease/8, time.Millisecond))
	defer tick.Stop()
	for n, last := 0, time.Now(); ; n++ {
		select {
		case <-tick.C:
		case <-s.lost:
			return
		}
		// When this process itself stood still, what the agent has said meanwhile may
		// not have been read yet.
		late := time.Since(last) > lease/2
		if last = time.Now(); late {
			continue
		}
		silent := time.Duration(time.Now().UnixNano() - s.heard.Load())
		if silent > lease {
			s.giveUp(fmt.Errorf("%w: silent for %v, its lease is %v", ErrAgentLost, silent.Round(time.Millisecond), lease))
			return
		}
		s.c.policy.heard(s.c.now(), silent < lease*5/8)
		if n%2 == 0 {
			// It must not wait for an agent that hangs: the next turn looks at the lease.
			m := wire.Seal(append(wire.Header{Type: wire.Beat, Epoch: s.epoch}.Append(nil), 1))
			_ = s.ctl.TryPost(qp.Op{Kind: qp.Send, Data: m})
		}
	}
}
