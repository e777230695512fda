package roce

import (
	"sync"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/rc"
)

// Limits of a shared receive queue.
const (
	maxSRQ    = 1 << 16
	maxSRQWR  = 1 << 15
	maxSRQSGE = maxSGE
)

// srq is a shared receive queue. mu is its own, so that posting receives does not
// wait for packets.
type srq struct {
	n      *node
	c      *devCtx
	p      *pd
	cookie uint64
	id     uint64

	mu    sync.Mutex // guards what follows
	q     *rc.RecvQueue
	attr  provider.SRQAttr
	moved rc.Recv // scratch of Modify
}

var (
	_ provider.SRQ  = (*srq)(nil)
	_ rc.RecvSource = (*srq)(nil)
)

// createSRQ makes a shared receive queue of domain p.
func (n *node) createSRQ(p *pd, init *provider.SRQInit) (*srq, error) {
	if init.Type != provider.SRQTBasic || init.XRCD != nil || init.CQ != nil {
		return nil, syscall.EOPNOTSUPP
	}
	a := &init.Attr
	if a.MaxWR == 0 || a.MaxWR > maxSRQWR || a.MaxSGE > maxSRQSGE {
		return nil, syscall.EINVAL
	}
	a.MaxSGE, a.Limit = max(a.MaxSGE, 1), 0 // the limit is armed by Modify only
	s := &srq{n: n, c: p.c, p: p, cookie: init.Cookie, attr: *a, q: rc.NewRecvQueue(int(a.MaxWR), int(a.MaxSGE))}
	n.mu.Lock()
	defer n.mu.Unlock()
	p.refs++
	n.mem.srqs++
	s.id = uint64(n.mem.srqs)
	return s, nil
}

// CreateSRQ makes a shared receive queue.
//
// Verb: ibv_create_srq(3), ibv_create_srq_ex(3).
func (c *devCtx) CreateSRQ(init *provider.SRQInit) (provider.SRQ, error) {
	p, ok := init.PD.(*pd)
	if !ok || p.n != c.n {
		return nil, syscall.EINVAL
	}
	s, err := c.n.createSRQ(p, init)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Handle names the queue.
func (s *srq) Handle() uint64 { return s.id }

// PostRecv adds requests in order: ENOMEM when the queue is full.
//
// Verb: ibv_post_srq_recv(3).
func (s *srq) PostRecv(wr []provider.RecvWR, sge []provider.SGE) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range wr {
		w := &wr[i]
		if uint64(w.SGEOff)+uint64(w.NumSGE) > uint64(len(sge)) {
			return i, syscall.EINVAL
		}
		if err := s.q.Post(w.ID, sge[w.SGEOff:w.SGEOff+w.NumSGE]); err != nil {
			return i, err
		}
	}
	return len(wr), nil
}

// NextRecv implements rc.RecvSource. Called with node.mu held. The limit event
// comes once, when fewer requests are left.
func (s *srq) NextRecv(r *rc.Recv) bool {
	s.mu.Lock()
	ok := s.q.NextRecv(r)
	low := ok && s.attr.Limit > 0 && s.q.Len() < int(s.attr.Limit)
	if low {
		s.attr.Limit = 0
	}
	s.mu.Unlock()
	if low {
		s.c.raise(provider.EventSRQLimitReached, s.cookie, 0)
	}
	return ok
}

// Modify resizes the queue, which keeps its requests, and arms the limit.
//
// Verb: ibv_modify_srq(3).
func (s *srq) Modify(a *provider.SRQAttr, mask provider.SRQAttrMask) error {
	if mask&^(provider.SRQAttrMaxWR|provider.SRQAttrLimit) != 0 {
		return syscall.EINVAL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	to := s.attr
	if mask&provider.SRQAttrMaxWR != 0 {
		to.MaxWR = a.MaxWR
	}
	if mask&provider.SRQAttrLimit != 0 {
		to.Limit = a.Limit
	}
	if to.MaxWR == 0 || to.MaxWR > maxSRQWR || int(to.MaxWR) < s.q.Len() || to.Limit > to.MaxWR {
		return syscall.EINVAL
	}
	if to.MaxWR != s.attr.MaxWR {
		q := rc.NewRecvQueue(int(to.MaxWR), int(to.MaxSGE))
		for s.q.NextRecv(&s.moved) {
			if err := q.Post(s.moved.ID, s.moved.SGE); err != nil {
				return err // cannot be: it has room
			}
		}
		s.q = q
	}
	s.attr = to
	return nil
}

// Query reads the attributes; a limit that was reached is 0.
//
// Verb: ibv_query_srq(3).
func (s *srq) Query(a *provider.SRQAttr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	*a = s.attr
	return nil
}

// Num is for XRC, which the device does not have.
//
// Verb: ibv_get_srq_num(3).
func (s *srq) Num() (uint32, error) { return 0, syscall.EOPNOTSUPP }

// Close frees the queue.
//
// Verb: ibv_destroy_srq(3).
func (s *srq) Close() error {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	s.p.refs--
	return nil
}
