package rpc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// piece is a part of a call's buffer that is shown to the peer over one rail: all
// of it, or one of several stripes.
type piece struct {
	g     *mr.Grant
	conn  *qp.Conn
	rail  *rail
	of    int  // number of the buffer
	cut   bool // a stripe: what was taken is a slice, the buffer itself is the call's still
	write bool // the peer may write
}

// stripes is into how many parts a buffer of n bytes is cut.
func (cs *clientSession) stripes(t *railSet, n int) int {
	if len(t.up) == 1 || cs.cfg.Stripe < 0 || n < 2*cs.cfg.Stripe {
		return 1
	}
	return min(len(t.up), n/cs.cfg.Stripe, maxDescs/2)
}

// show exposes buffer i of a call, whose request goes over home: whole on home, or
// in stripes, the first of them there. The descriptors say, in order, where its
// bytes are.
func (cs *clientSession) show(ctx context.Context, r *request, i int, t *railSet, home path, ps []piece, ds []desc) ([]piece, []desc, error) {
	b, dir := r.bufs[i], r.dirs[i]
	flags := uint16(dirFrom)
	if dir == mr.DeviceWrites {
		flags = dirToPeer
	}
	n := cs.stripes(t, b.Len())
	if n == 1 {
		if err := home.rail.nic.reach(b); err != nil {
			return ps, ds, err
		}
		g, err := home.rail.nic.granter.Start(ctx, home.conn, b, dir)
		if err != nil {
			return ps, ds, err
		}
		ps = append(ps, piece{g: g, conn: home.conn, rail: home.rail, of: i, write: dir == mr.DeviceWrites})
		return ps, append(ds, desc{Remote: g.Remote(), rail: home.num, flags: flags}), nil
	}
	const page = 4096
	part := ((b.Len()+n-1)/n + page - 1) / page * page
	at := home
	for k, lo := 0, 0; lo < b.Len(); k, lo = k+1, lo+part {
		if k > 0 {
			at = cs.elsewhere(t, home, k)
		}
		err := at.rail.nic.reach(b)
		var s mr.Buf
		if err == nil {
			s, err = b.Slice(lo, min(lo+part, b.Len()))
		}
		if err != nil {
			return ps, ds, err
		}
		r.cut[i] = true
		g, err := at.rail.nic.granter.Start(ctx, at.conn, s, dir)
		if err != nil {
			_ = s.Release()
			if at.conn.Err() != nil { // not this call's fault: without the rail it works
				cs.lost(at.conn, at.conn.Err())
				err = &lostError{cause: at.conn.Err()}
			}
			return ps, ds, err
		}
		ps = append(ps, piece{g, at.conn, at.rail, i, true, dir == mr.DeviceWrites})
		ds = append(ds, desc{Remote: g.Remote(), rail: at.num, flags: flags})
	}
	return ps, ds, nil
}

// elsewhere is a path over the k-th rail after home's.
func (cs *clientSession) elsewhere(t *railSet, home path, k int) path {
	for i, r := range t.up {
		if r == home.rail {
			r = t.up[(i+k)%len(t.up)]
			j := int(cs.next.Add(1) % uint32(len(r.data)))
			return path{r.data[j], r, uint16(r.place<<8 | j)}
		}
	}
	return home // it was lost meanwhile: so is the call
}

// bound waits until the windows on other queue pairs than the request's are in
// effect, which no order of posts says.
func bound(ctx context.Context, ps []piece, home *qp.Conn) error {
	for i := range ps {
		p := &ps[i]
		if p.conn == home {
			continue
		}
		select {
		case <-p.g.Bound():
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := p.g.Err(); err != nil {
			if e := p.conn.Err(); e != nil {
				err = &lostError{cause: e}
			}
			return err
		}
	}
	return nil
}

// reclaim takes pieces back from a request that will not be answered. With again
// it waits until the memory is safe, so that the request can be sent once more;
// without, or when ctx ends, the memory goes back to its pool by itself.
func (cs *clientSession) reclaim(ctx context.Context, r *request, ps []piece, again bool) (lost error) {
	for i := range ps {
		p := &ps[i]
		if p.g == nil {
			continue
		}
		g := p.g
		p.g = nil
		if !again {
			g.Abandon()
			lost = errAbandoned
			continue
		}
		wait, cancel := context.WithTimeout(ctx, 2*time.Second)
		b, err := g.Revoke(wait)
		cancel()
		switch {
		case err != nil:
			lost = err
		case p.cut:
			_ = b.Release()
		default:
			r.bufs[p.of] = b
		}
	}
	return lost
}

var errAbandoned = errors.New("rpc: the call was given up")

// regain takes the pieces of a call that was answered back, by the word of the
// peer that it is done. The buffers are the request's again. lost: one of them is
// not, or what was written into it may not be there.
func (cs *clientSession) regain(ctx context.Context, k *call, r *request, ps []piece) (lost error) {
	for i := range ps {
		p := &ps[i]
		g := p.g
		p.g = nil
		if !p.cut {
			r.bufs[p.of] = mr.Buf{}
		}
		g.Invalidated(&k.wc.WC)
		b, err := g.Finish(ctx)
		if err != nil {
			lost = err
			continue
		}
		if p.cut {
			_ = b.Release()
		} else {
			r.bufs[p.of] = b
		}
		g.Recycle()
		// On a rail that has failed the fence was another one: what the peer's device
		// was told that it is there need not be.
		if p.write && p.conn != k.conn && p.conn.Err() != nil && lost == nil {
			lost = &lostError{sent: true, cause: p.conn.Err()}
		}
	}
	return lost
}

// orphaned deals with a call whose queue pair has ended before its answer came.
func (cs *clientSession) orphaned(ctx context.Context, k *call, r *request, ps []piece) error {
	cause := k.rail.why
	if !elsewhere(ps) {
		memory := cs.reclaim(ctx, r, ps, r.idempotent)
		cs.finish(k)
		return &lostError{sent: true, memory: memory, cause: cause}
	}
	// The server may still use its memory, over other rails.
	if !r.idempotent {
		cs.retract(k, ps)
		return &lostError{sent: true, memory: errAbandoned, cause: cause}
	}
	cs.tellCancel(k)
	cs.acknowledged(ctx, k, ps)
	memory := cs.reclaim(ctx, r, ps, true)
	cs.finish(k)
	return &lostError{sent: true, memory: memory, cause: cause}
}

// elsewhere reports pieces on rails that are up.
func elsewhere(ps []piece) bool {
	for i := range ps {
		if ps[i].g != nil && !ps[i].rail.over() {
			return true
		}
	}
	return false
}

// cancel gives a call up whose context has ended.
func (cs *clientSession) cancel(k *call, ps []piece) {
	cs.c.stats.cancelled.Add(1)
	cs.retract(k, ps)
}

// retract gives a call up. The wait has ended; the memory stays until the peer says
// that it is done with it or, after the grace, until the right was taken away.
func (cs *clientSession) retract(k *call, ps []piece) {
	cs.tellCancel(k)
	if len(ps) == 0 {
		cs.finish(k)
		return
	}
	kept := append([]piece(nil), ps...)
	cs.c.wg.Add(1) // Close cannot be past its wait: the call is inside the gate
	go func() {
		defer cs.c.wg.Done()
		ps := kept
		switch cs.acknowledged(context.Background(), k, ps) {
		case byAck:
			cs.c.stats.fencedByAck.Add(1)
		case byGrace:
			cs.c.stats.fencedHard.Add(1)
		}
		cs.mu.Lock()
		wc := k.wc.WC
		cs.mu.Unlock()
		for i := range ps {
			ps[i].g.Invalidated(&wc)
		}
		// The place stays taken until the memory is back: it is what bounds the
		// fences that a flood of cancellations can have under way.
		for i := range ps {
			ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
			b, err := ps[i].g.Revoke(ctx)
			stop()
			if err == nil {
				_ = b.Release()
			}
		}
		cs.finish(k)
	}()
}

// tellCancel sends CANCEL on the queue pair of the call or, when its rail is lost,
// on that of another.
func (cs *clientSession) tellCancel(k *call) {
	c := k.conn
	if k.rail.over() {
		cs.mu.Lock()
		if k.lost && !cs.over { // by the rail: an acknowledgement may come
			k.answered, k.lost = false, false
		}
		k.anywhere = true
		cs.mu.Unlock()
		c = cs.rails.Load().eager.conn
	}
	cs.tell(c, &header{typ: msgCancel, id: k.id}, nil)
}

type fencedBy int

const (
	byNobody fencedBy = iota // the session, or the wait, has ended
	byAck
	byGrace
)

// acknowledged waits until the server says that it is done with the call.
func (cs *clientSession) acknowledged(ctx context.Context, k *call, ps []piece) fencedBy {
	grace := time.NewTimer(cs.cfg.Grace)
	defer grace.Stop()
	for {
		select {
		case <-k.ready:
			if !k.lost {
				k.drop()
				return byAck
			}
			if !elsewhere(ps) {
				return byNobody
			}
			cs.tellCancel(k)
		case <-grace.C:
			return byGrace
		case <-cs.done:
			return byNobody
		case <-ctx.Done():
			return byNobody
		}
	}
}

// collect reads what the server offers into the caller's buffer, piece by piece.
func (cs *clientSession) collect(ctx context.Context, k *call, r *request) (end int, err error) {
	i := 0
	for i < r.n && r.dirs[i] != mr.DeviceWrites {
		i++
	}
	if i == r.n {
		return 0, &Error{Code: Internal, Method: r.method, Message: "the server offers a result that was not asked for"}
	}
	n := int(k.msg.header.descs)
	for j := range n {
		d := k.msg.desc(j)
		if d.Len == 0 {
			continue
		}
		b := r.bufs[i]
		lo, hi := int(d.nonce), int(min(uint64(d.nonce)+uint64(d.Len), math.MaxInt32))
		if hi > b.Len() || hi-lo != int(d.Len) {
			return end, &Error{Code: Internal, Method: r.method, Message: fmt.Sprintf("the server offers bytes %d to %d of a buffer of %d", lo, uint64(lo)+uint64(d.Len), b.Len())}
		}
		if n == 1 && lo == 0 && (hi == b.Len() || cs.cfg.Bulk == Pull) {
			if b, err = b.Narrow(lo, hi); err == nil {
				r.bufs[i], err = cs.fetch(ctx, k, b, d.Remote)
			}
		} else if b, err = b.Slice(lo, hi); err == nil {
			r.cut[i] = true
			if b, err = cs.fetch(ctx, k, b, d.Remote); !b.IsZero() {
				_ = b.Release()
			}
		}
		if err != nil {
			return end, err
		}
		end = max(end, hi)
	}
	return end, nil
}

// fetch reads b from the server, when the device may.
func (cs *clientSession) fetch(ctx context.Context, k *call, b mr.Buf, from mr.Remote) (mr.Buf, error) {
	n := k.rail.nic
	if err := n.reach(b); err != nil {
		return b, err
	}
	if err := n.budget.reads.take(ctx, k.rail.done); err != nil {
		return b, err
	}
	defer n.budget.reads.give()
	return k.conn.Read(ctx, b, from)
}
