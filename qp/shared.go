package qp

import (
	"context"
	"fmt"
	"sync"

	"github.com/zrdma/zrdma/verbs"
)

// SharedReceiveConfig configures a SharedReceive. The zero value is good.
type SharedReceiveConfig struct {
	Depth      int // receives; 0: 1024. The windows of its connections together are at most that
	MaxMessage int // bytes of each; 0: 4096
}

// SharedReceive is receives that many connections share: a thousand idle peers do
// not need a thousand rings of them. Each connection's window is a part of it, so
// that a peer never finds it empty.
type SharedReceive struct {
	d    *Device
	cfg  SharedReceiveConfig
	srq  *verbs.SRQ
	ring *ring
	die  context.CancelFunc

	mu     sync.Mutex
	left   int // receives that no connection has been promised; guarded by mu, as all below
	n      int // connections
	closed bool
	users  map[*Engine]int // connections on each engine
}

// NewSharedReceive makes a shared receive queue on the device and fills it.
//
// Verb: ibv_create_srq(3).
func (d *Device) NewSharedReceive(cfg SharedReceiveConfig) (*SharedReceive, error) {
	if cfg.Depth == 0 {
		cfg.Depth = 1024
	}
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = 4096
	}
	if cfg.Depth < 1 || cfg.MaxMessage < controlSize {
		return nil, fmt.Errorf("qp: SharedReceiveConfig: %d receives of %d bytes", cfg.Depth, cfg.MaxMessage)
	}
	if _, err := d.engine(nil); err != nil {
		return nil, err
	}
	srq, err := d.pd.CreateSRQ(verbs.SRQConfig{Attr: verbs.SRQAttr{MaxWR: uint32(cfg.Depth), MaxSGE: 1}})
	if err != nil {
		return nil, fmt.Errorf("qp: %w", err)
	}
	s := &SharedReceive{d: d, cfg: cfg, srq: srq, left: cfg.Depth, users: map[*Engine]int{}, ring: newRing(d.pool, d.pd, cfg.Depth, cfg.MaxMessage)}
	s.ring.life, s.die = context.WithCancel(context.Background())
	s.ring.post = srq.PostRecv
	if err := s.ring.begin(cfg.Depth); err != nil {
		s.Close()
		return nil, fmt.Errorf("qp: shared receives: %w", err)
	}
	return s, nil
}

// join promises a connection its window. Any engine may get the completions of
// all the receives, whatever peers do.
func (s *SharedReceive) join(cfg *Config, e *Engine) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("qp: shared receives: %w", verbs.ErrClosed)
	}
	need := cfg.RecvDepth + recvReserve
	if need > s.left {
		return fmt.Errorf("qp: the shared receives have %d left of %d; a connection with a window of %d needs %d: use a larger SharedReceiveConfig.Depth or a smaller Config.RecvDepth",
			s.left, s.cfg.Depth, cfg.RecvDepth, need)
	}
	if s.users[e] == 0 {
		if err := e.reserve(s.cfg.Depth); err != nil {
			return err
		}
	}
	s.users[e]++
	s.left -= need
	s.n++
	cfg.MaxMessage = s.cfg.MaxMessage
	return nil
}

func (s *SharedReceive) leave(window int, e *Engine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left += window + recvReserve
	s.n--
	if s.users[e]--; s.users[e] == 0 {
		delete(s.users, e)
		e.unreserve(s.cfg.Depth)
	}
}

// Close frees the queue: verbs.ErrInUse while connections use it.
//
// Verb: ibv_destroy_srq(3).
func (s *SharedReceive) Close() error {
	s.mu.Lock()
	n := s.n
	s.closed = s.closed || n == 0
	s.mu.Unlock()
	if n > 0 {
		return fmt.Errorf("qp: %d connections share these receives: %w", n, verbs.ErrInUse)
	}
	s.ring.stop()
	s.die()
	if err := s.srq.Close(); err != nil {
		return fmt.Errorf("qp: %w", err)
	}
	s.ring.drop(func(f flight) { f.Release() })
	return nil
}
