package qp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/verbs"
)

// Message is what a peer sent. Its Buf is the receiver's: Release it.
type Message struct {
	Conn *Conn
	Buf  mr.Buf // the bytes; zero for the message of a WriteImm
	Imm  uint32 // valid with HasImm
	// HasImm: of a WriteImm, or on a raw connection of any message with one.
	HasImm bool
	// Written is how many bytes a WriteImm has put into this side's memory.
	Written int
	// WC is the completion, for mr.Grant.Invalidated and the like.
	WC verbs.WC
}

// ring is a receive queue and the memory posted to it: a connection's own, or
// one that many share. The WR ID is the place in flights.
type ring struct {
	own  bool
	size int // of one receive, in bytes
	pool *mr.Pool
	pd   *verbs.PD
	post func([]verbs.RecvWR) (int, error)
	life context.Context

	mu      sync.Mutex
	flights []flight // by WR ID; guarded by mu, as all below
	free    []uint32 // places without a flight
	out     int      // posted
	debts   []debt   // receives used up and not replaced, oldest first
	control int      // of them, those of control messages
	short   bool     // a connection's part of them is worth a credit message
	spare   []mr.Buf // for the next receives
	waiting bool     // a goroutine waits for the pool
	stopped bool
	refused error // what the device last said to a post
	wr      []verbs.RecvWR
	sge     []verbs.SGE
	got     []flight
	due     []*Conn // scratch of top
}

// debt is a receive that a connection used up; the peer gets a credit for it when
// it is replaced, unless a control message took it.
type debt struct {
	c       *Conn // nil: of nobody's
	control bool
}

// controlDebts is how many receives that control messages took may be missing: no
// credit pays for those, and five and a probe must always find one (recvReserve).
const controlDebts = 2

func newRing(pool *mr.Pool, pd *verbs.PD, places, size int) *ring {
	r := &ring{size: size, pool: pool, pd: pd, flights: make([]flight, places), free: make([]uint32, places), debts: make([]debt, 0, places)}
	for i := range r.free {
		r.free[i] = uint32(places - 1 - i)
	}
	return r
}

// posted is how many receives the device has.
func (r *ring) posted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out
}

// stop makes fill do nothing from now on.
func (r *ring) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	for _, b := range r.spare {
		_ = b.Release()
	}
	r.spare = nil
}

// take gives the flight of a completed receive.
func (r *ring) take(id uint64) (flight, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := uint32(id)
	if int(i) >= len(r.flights) || r.flights[i].IsZero() {
		return flight{}, false
	}
	f := r.flights[i]
	r.flights[i] = flight{}
	r.free = append(r.free, i)
	r.out--
	return f, true
}

func (r *ring) owes(d debt) {
	r.mu.Lock()
	r.debts = append(r.debts, d)
	if d.control {
		r.control++
	} else if d.c != nil {
		d.c.unpaid++
		r.short = r.short || d.c.unpaid >= d.c.creditStep()
	}
	r.mu.Unlock()
}

// owesNobody is owes for a receive that no credit was given for.
func (r *ring) owesNobody() {
	r.owes(debt{})
	r.top()
}

// begin posts the first n receives.
func (r *ring) begin(n int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, err := r.postSome(n)
	if err == nil && k < n {
		err = fmt.Errorf("%d of %d receives of %d bytes have memory: %w", k, n, r.size, mr.ErrExhausted)
	}
	return err
}

// fill replaces receives that were used up. Connections that now owe their peers
// so many credits that it is worth a message are appended to due.
func (r *ring) fill(due []*Conn) []*Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	// One doorbell for several, unless the queue runs dry, or a peer: of a shared
	// queue its window can be a small part.
	if r.stopped || len(r.debts) == 0 || len(r.debts) < len(r.flights)/8 && r.out > len(r.flights)/2 && r.control <= controlDebts && !r.short {
		return due
	}
	r.short = false
	n, err := r.postSome(min(len(r.debts), len(r.free)))
	switch {
	case err == nil:
	case errors.Is(err, mr.ErrExhausted):
		if !r.waiting {
			r.waiting = true
			go r.await()
		}
	default:
		r.refused = err
	}
	for _, d := range r.debts[:n] {
		if d.control {
			r.control--
			continue
		}
		if d.c != nil {
			d.c.unpaid--
		}
		if d.c != nil && d.c.flow && d.c.in.owe(1) >= d.c.creditStep() && (len(due) == 0 || due[len(due)-1] != d.c) {
			due = append(due, d.c)
		}
	}
	for _, d := range r.debts[n:] { // what memory was missing for
		r.short = r.short || d.c != nil && !d.control && d.c.unpaid >= d.c.creditStep()
	}
	k := copy(r.debts, r.debts[n:])
	clear(r.debts[k:])
	r.debts = r.debts[:k]
	return due
}

// await brings memory when the pool had none.
func (r *ring) await() {
	b, err := r.pool.Get(r.life, r.size)
	r.mu.Lock()
	r.waiting = false
	if err == nil && r.stopped {
		_ = b.Release()
	} else if err == nil {
		r.spare = append(r.spare, b)
	}
	r.mu.Unlock()
	if err == nil {
		r.top()
	}
}

// top fills and gives credits.
func (r *ring) top() {
	r.mu.Lock()
	due := r.due
	r.due = nil // another may come meanwhile
	r.mu.Unlock()
	due = r.fill(due[:0])
	for _, c := range due {
		c.giveCredits()
	}
	clear(due)
	r.mu.Lock()
	r.due = due
	r.mu.Unlock()
}

func (r *ring) memory() (mr.Buf, error) {
	if n := len(r.spare); n > 0 {
		b := r.spare[n-1]
		r.spare = r.spare[:n-1]
		return b, nil
	}
	return r.pool.TryGet(r.size)
}

// postSome posts at most n receives and returns how many.
func (r *ring) postSome(n int) (int, error) {
	r.wr, r.sge, r.got = r.wr[:0], r.sge[:0], r.got[:0]
	var short error
	for range n {
		b, err := r.memory()
		if err != nil {
			short = err
			break
		}
		f, err := b.Take(mr.DeviceWrites)
		if err != nil {
			short = err
			break
		}
		s, err := f.SGE(r.pd)
		if err != nil {
			f.Release()
			short = err
			break
		}
		i := r.free[len(r.free)-1-len(r.wr)]
		r.sge = append(r.sge, s)
		r.got = append(r.got, f)
		r.wr = append(r.wr, verbs.RecvWR{ID: recvBit | uint64(i)})
	}
	if len(r.wr) == 0 {
		return 0, short
	}
	for i := range r.wr {
		r.wr[i].SGList = r.sge[i : i+1]
		r.flights[uint32(r.wr[i].ID)] = r.got[i]
	}
	k, err := r.post(r.wr)
	for i := k; i < len(r.wr); i++ {
		r.flights[uint32(r.wr[i].ID)] = flight{}
		r.got[i].Release()
	}
	clear(r.got)
	r.free = r.free[:len(r.free)-k]
	r.out += k
	return k, errors.Join(err, short)
}

// drop ends every flight, when the queue is gone.
func (r *ring) drop(end func(flight)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, f := range r.flights {
		if !f.IsZero() {
			r.flights[i] = flight{}
			r.out--
			end(f)
		}
	}
}

// inbox is the messages received and not taken, and what is owed to the peer for
// those that were.
type inbox struct {
	mu    sync.Mutex
	queue []Message // guarded by mu, as all below
	first int
	wake  chan struct{} // one token: the queue may have something

	owed atomic.Uint32 // credits to grant
}

func (in *inbox) held() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.queue) - in.first
}

// owe adds credits that the peer is to get, and returns how many those are now.
func (in *inbox) owe(n uint32) int { return int(in.owed.Add(n)) }

func (in *inbox) owing() int { return int(in.owed.Load()) }

// takeGrant is how many credits a message can give to the peer.
func (in *inbox) takeGrant() uint32 {
	for {
		owed := in.owed.Load()
		n := min(owed, immGrant)
		if n == 0 || in.owed.CompareAndSwap(owed, owed-n) {
			return n
		}
	}
}

func (in *inbox) returnGrant(n uint32) { in.owed.Add(n) }

// close drops what nobody took and returns how many messages that were.
func (in *inbox) close() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := len(in.queue) - in.first
	for _, m := range in.queue[in.first:] {
		if !m.Buf.IsZero() {
			_ = m.Buf.Release()
		}
	}
	in.queue, in.first = nil, 0
	return n
}

func (in *inbox) put(m Message) {
	in.mu.Lock()
	in.queue = append(in.queue, m)
	in.mu.Unlock()
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

func (in *inbox) get() (Message, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.first == len(in.queue) {
		return Message{}, false
	}
	m := in.queue[in.first]
	in.queue[in.first] = Message{}
	in.first++
	if in.first == len(in.queue) {
		in.queue, in.first = in.queue[:0], 0
	} else {
		select { // another receiver may be waiting
		case in.wake <- struct{}{}:
		default:
		}
	}
	return m, true
}

// Recv takes the next message, waiting for it. Messages that came before the
// connection ended are still given out; then it is the *EndError.
//
// Verb: ibv_post_recv(3), ibv_poll_cq(3).
func (c *Conn) Recv(ctx context.Context) (Message, error) {
	for {
		if m, ok := c.in.get(); ok {
			c.consumed()
			return m, nil
		}
		select {
		case <-c.in.wake:
		case <-ctx.Done():
			return Message{}, ctx.Err()
		case <-c.quiet:
			if m, ok := c.in.get(); ok {
				c.consumed()
				return m, nil
			}
			return Message{}, c.Err()
		}
	}
}

// consumed makes room for another message after one was taken.
func (c *Conn) consumed() {
	c.recv.owes(debt{c: c})
	c.recv.top()
}

// giveCredits sends what is owed to the peer when it is worth a message. When two
// are on their way already, the completion of one tries again.
func (c *Conn) giveCredits() {
	if c.in.owing() < c.creditStep() {
		return
	}
	c.send.Lock()
	c.sendControl(false)
	c.send.Unlock()
}

// creditStep is how many credits are worth a message of their own.
func (c *Conn) creditStep() int { return max(c.cfg.RecvDepth/4, 1) }

// received takes the completion of a receive, in the engine's goroutine.
func (c *Conn) received(wc *verbs.WC) {
	f, ok := c.recv.take(wc.WRID)
	if !ok {
		c.stats.orphans.Add(1)
		return
	}
	if wc.Status != verbs.WCSuccess {
		f.Release()
		if !c.recv.own {
			c.recv.owesNobody() // the others need it
		}
		c.stats.fail(wc.Status)
		if wc.Status == verbs.WCWRFlushErr {
			c.end(errFlushed)
			return
		}
		c.end(&verbs.CompletionError{Status: wc.Status, Opcode: wc.Opcode, WRID: wc.WRID, QPN: wc.QPN, VendorErr: wc.VendorErr})
		return
	}
	c.stats.received.Add(1)
	c.invalidated(wc)
	m := Message{Conn: c, WC: *wc, HasImm: wc.Flags&verbs.WCWithImm != 0}
	if m.HasImm {
		m.Imm = wc.Imm()
	}
	if wc.Opcode == verbs.WCRecvRDMAWithImm {
		f.Release()
		m.Written = int(wc.ByteLen)
		c.deliver(m)
		return
	}
	b := f.Complete()
	if c.flow && m.HasImm {
		c.credits.give(int(m.Imm & immGrant))
		if m.Imm&immControl != 0 {
			_ = b.Release()
			c.recv.owes(debt{c: c, control: true})
			return
		}
		m.Imm, m.HasImm = 0, false
	}
	n, err := b.Narrow(0, int(wc.ByteLen))
	if err != nil { // longer than what was posted: cannot be
		_ = b.Release()
		c.recv.owes(debt{})
		c.end(err)
		return
	}
	m.Buf = n
	c.deliver(m)
}

func (c *Conn) deliver(m Message) {
	if f := c.cfg.OnMessage; f != nil && c.up {
		c.recv.owes(debt{c: c}) // settle replaces it, when all of the batch are told
		f(c, m)
		return
	}
	c.in.put(m)
}
