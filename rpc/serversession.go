package rpc

import (
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/zrdma/zrdma/qp"
)

// serverSession is the server's half of a session.
type serverSession struct {
	*session
	s    *Server
	busy atomic.Int32 // len(calls)
	// answered is how many of calls have their answer, but not all of their end.
	answered atomic.Int32

	mu     sync.Mutex
	calls  map[uint64]*ServerCall // being handled, or offering memory; guarded by mu, as all below
	orders map[uint32]*turn       // the last of each order key
	begun  bool                   // Server.wg counts it
	over   bool                   // it has ended: no call begins, no offer is kept
}

func newServerSession(s *Server, first int) *serverSession {
	x := newSession(&s.cfg.Config, s.nics, first, "")
	x.server, x.maxData = true, s.cfg.MaxDataQPs
	x.copied = &s.stats.copied
	x.local = hello{major: major, minor: minor, bootID: s.bootID, slot: uint32(s.cfg.SlotSize), calls: uint32(s.cfg.MaxCalls)}
	if n := len(s.nics); n > 1 {
		x.local.rails, x.local.first = uint16(n), uint16(first)
	}
	_, _ = rand.Read(x.local.nonce[:])
	ss := &serverSession{session: x, s: s, calls: map[uint64]*ServerCall{}, orders: map[uint32]*turn{}}
	x.owner = ss
	return ss
}

// begin makes the end of the session count, unless it has ended.
func (ss *serverSession) begin() bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.begun = !ss.over
	return ss.begun
}

// gone hears that the session ended: handlers are told, the queue pairs closed,
// and what was offered is taken back.
func (ss *serverSession) gone(x *session, _ error) {
	ss.mu.Lock()
	ss.over = true
	begun := ss.begun
	for _, c := range ss.calls {
		c.cancel()
	}
	ss.mu.Unlock()
	if !begun { // it has no queue pair yet, and will get none
		return
	}
	go func() {
		defer ss.s.wg.Done()
		x.close()
		// No callback of the queue pairs runs any more: calls are those there are.
		ss.mu.Lock()
		var left []*ServerCall
		for _, c := range ss.calls {
			left = append(left, c)
		}
		ss.mu.Unlock()
		for _, c := range left {
			c.settle() // those without a handler any more
		}
		ss.s.mu.Lock()
		delete(ss.s.sessions, ss)
		ss.s.mu.Unlock()
	}()
}

// take takes what the client sends, in an engine's goroutine.
func (ss *serverSession) take(x *session, m qp.Message, msg message) {
	if msg.epoch != x.epoch {
		_ = m.Buf.Release()
		x.end(fmt.Errorf("rpc: a message of epoch %d in epoch %d from %s", msg.epoch, x.epoch, x.peerName()))
		return
	}
	switch msg.typ {
	case msgRequest:
		ss.request(m, &msg)
	case msgCancel:
		_ = m.Buf.Release()
		ss.mu.Lock()
		c := ss.calls[msg.id]
		if c != nil && (c.conn == m.Conn || x.multi()) { // its own rail may be lost
			c.cancelled, c.ackTo = true, m.Conn
		}
		ss.mu.Unlock()
		if c == nil { // answered already: nothing of it goes on
			x.tell(m.Conn, &header{typ: msgCancelAck, id: msg.id}, nil)
			return
		}
		ss.s.stats.cancelled.Add(1)
		c.cancel()
		c.settle()
	case msgBulkDone:
		_ = m.Buf.Release()
		ss.mu.Lock()
		c := ss.calls[msg.id]
		if c != nil {
			c.taken = true
		}
		ss.mu.Unlock()
		if c != nil {
			c.settle()
		}
	default:
		_ = m.Buf.Release()
		x.end(fmt.Errorf("rpc: %v from the client %s", msg.typ, x.peerName()))
	}
}

func (ss *serverSession) railUp(*rail) {}

// railLost ends the calls that came over the rail: nobody can have their answers.
func (ss *serverSession) railLost(r *rail) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, c := range ss.calls {
		if r.has(c.conn) {
			c.orphan = true
			c.cancel()
		}
	}
}

// railGone settles those of them that have no handler any more.
func (ss *serverSession) railGone(r *rail) {
	ss.mu.Lock()
	var left []*ServerCall
	for _, c := range ss.calls {
		if r.has(c.conn) {
			c.orphan = true
			left = append(left, c)
		}
	}
	ss.mu.Unlock()
	for _, c := range left {
		c.cancel()
		c.settle()
	}
}
