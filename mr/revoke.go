package mr

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// Grant is memory that a peer may touch. It ends by Revoke or Abandon.
type Grant struct {
	g      *Granter
	q      GrantQP
	f      Flight
	dir    Direction
	mech   Mechanism
	remote Remote
	w      *window   // ByWindow
	mr     *verbs.MR // ByRegion

	done chan struct{} // a token once fenced or leaked, for the one who claimed it
	mu   sync.Mutex
	// guarded by mu
	isBound   bool          // bindErr is set
	bindErr   error         //
	bound     chan struct{} // closed once isBound, if anybody has asked for it
	fencing   bool
	byPeer    bool // the peer's SEND with invalidate took the key away
	finished  bool // Finish: the peer is done by its own word
	ended     bool // done has its token
	abandoned bool // nobody waits: the memory goes back to its pool
	claimed   bool // a Revoke has the Buf, or the error
	unbound   bool // the window is known to be, and may be used again
	err       error

	again // see Recycle
}

var errRevoked = errors.New("mr: the grant was revoked or abandoned before")

// Start is Grant that does not wait for the bind: on the same queue pair what is
// posted next comes after it. Remote is valid at once; a bind that failed shows
// in Bound and Revoke.
func (g *Granter) Start(ctx context.Context, q GrantQP, b Buf, d Direction) (*Grant, error) {
	if q.PD() != g.pd {
		return nil, fmt.Errorf("mr: the queue pair is of another protection domain than the Granter: %w", syscall.EINVAL)
	}
	if d != DeviceReads && d != DeviceWrites {
		return nil, fmt.Errorf("mr: %v: %w", d, syscall.EINVAL)
	}
	if b.Len() == 0 {
		return nil, fmt.Errorf("mr: granting no bytes: %w", syscall.EINVAL)
	}
	f, err := b.Take(d)
	if err != nil {
		return nil, err
	}
	t, err := g.enter()
	if err != nil {
		f.Undo()
		return nil, err
	}
	t.g, t.q, t.f, t.dir, t.mech = g, q, f, d, g.mech
	if err := t.expose(ctx); err != nil {
		f.Undo()
		g.exit()
		return nil, err
	}
	g.granted.Add(1)
	return t, nil
}

// enter opens a grant.
func (g *Granter) enter() (*Grant, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, ErrClosed
	}
	g.open++
	return g.fresh(), nil
}

func (g *Granter) exit() {
	g.mu.Lock()
	g.open--
	g.mu.Unlock()
}

// expose makes the memory reachable. After an error it is not, and never was.
func (t *Grant) expose(ctx context.Context) error {
	r := t.f.Region()
	k := r.key(t.g.pd)
	switch {
	case k == nil:
		return errForeign
	case t.mech == ByWindow && k.access&verbs.AccessMWBind == 0:
		t.mech = ByRegion
	}
	access := verbs.AccessRemoteRead
	if t.dir == DeviceWrites {
		access = verbs.AccessRemoteWrite
	}
	t.remote = Remote{Addr: t.f.addr(k), Len: t.f.n}
	switch t.mech {
	case ByWindow:
		return t.bind(ctx, k, access)
	case ByQueuePair:
		if k.access&access == 0 {
			return fmt.Errorf("mr: a grant by queue pair needs a region registered with %v: %w", access, syscall.EACCES)
		}
		t.remote.RKey = k.mr.RKey()
	default:
		if r.mem == nil {
			return fmt.Errorf("mr: a part of a dma-buf can only be granted by a memory window: %w", errors.ErrUnsupported)
		}
		if access == verbs.AccessRemoteWrite {
			access |= verbs.AccessLocalWrite
		}
		s := t.f.h.slot
		m, err := t.g.pd.RegMR(s.mem[t.f.off:t.f.off+t.f.n], access)
		if err != nil {
			return explain(err, uint64(t.f.n), access)
		}
		t.mr = m
		t.remote.Addr, t.remote.RKey = m.Addr(), m.RKey()
	}
	t.isNowBound(nil)
	return nil
}

// isNowBound says that the exposure is in effect, or has failed.
func (t *Grant) isNowBound(err error) {
	t.mu.Lock()
	t.isBound, t.bindErr = true, err
	if t.bound != nil {
		close(t.bound)
	}
	t.mu.Unlock()
}

func (t *Grant) bind(ctx context.Context, k *key, access verbs.AccessFlags) error {
	w, err := t.g.window()
	if err != nil {
		return err
	}
	t.w = w
	t.remote.RKey = verbs.IncRKey(w.mw.RKey())
	wr := verbs.SendWR{
		Opcode: verbs.WRBindMW, Flags: verbs.SendSignaled, RKey: t.remote.RKey, BindMW: w.mw, BindMR: k.mr,
		BindAddr: t.remote.Addr, BindLength: uint64(t.remote.Len), BindAccess: access,
	}
	if err := t.q.PostControl(ctx, wr, t.onBound); err != nil {
		t.g.keep(w)
		return fmt.Errorf("mr: posting the bind of a window: %w", err)
	}
	w.binds++
	return nil
}

// Remote is what the peer needs to touch the memory.
func (t *Grant) Remote() Remote { return t.remote }

// Mechanism is how this grant was made.
func (t *Grant) Mechanism() Mechanism { return t.mech }

// Bound is closed when the exposure is in effect, or has failed: Err says which.
func (t *Grant) Bound() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bound == nil {
		t.bound = make(chan struct{})
		if t.isBound {
			close(t.bound)
		}
	}
	return t.bound
}

// Err is the failure of the bind, nil before Bound is closed.
func (t *Grant) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bindErr
}

// Invalidated tells the grant of a receive completion: true when it says that the
// peer's SEND with invalidate took the key of this grant away. Revoke then posts
// no LOCAL_INV, which would fail and cost the connection. rxe leaves the flag
// out of the completion but gives the key, and is believed.
func (t *Grant) Invalidated(wc *verbs.WC) bool {
	if t.mech != ByWindow || wc.Status != verbs.WCSuccess || !wc.IsRecv() || wc.InvalidatedRKey() != t.remote.RKey {
		return false
	}
	if wc.Flags&verbs.WCWithInv == 0 && (wc.Flags&verbs.WCWithImm != 0 || t.g.onBus) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byPeer = true
	return true
}

// Revoke takes the right away and returns a new Buf when the device can no longer
// touch the memory: proven, on devices that may be overrun by a packet after a
// quarantine. When ctx ends first it returns a *LostError: the fence goes on, and
// the memory goes back to its pool after it. When nothing can be proven the
// memory is leaked, and the error says so. A second Revoke fails.
func (t *Grant) Revoke(ctx context.Context) (Buf, error) {
	t.mu.Lock()
	if t.claimed || t.abandoned {
		t.mu.Unlock()
		return Buf{}, errRevoked
	}
	t.claimed = true
	t.mu.Unlock()
	t.fence(ctx)
	select {
	case <-t.done:
		return t.result()
	case <-ctx.Done():
	}
	t.mu.Lock()
	if !t.ended {
		t.abandoned = true
		t.mu.Unlock()
		return Buf{}, &LostError{ctx.Err()}
	}
	t.mu.Unlock()
	<-t.done // end still settles the window: t must not be recycled before
	return t.result()
}

// result is what the one Revoke returns after the end.
func (t *Grant) result() (Buf, error) {
	if t.err != nil {
		return Buf{}, t.err
	}
	return t.f.Complete(), nil
}

// undo fences a grant whose bind failed and gives the Buf that was taken back.
func (t *Grant) undo(ctx context.Context) error {
	cause := fmt.Errorf("binding a window: %w", t.Err())
	t.mu.Lock()
	t.claimed = true
	t.mu.Unlock()
	t.fence(ctx)
	select {
	case <-t.done:
	case <-ctx.Done():
		t.mu.Lock()
		if !t.ended {
			t.abandoned = true
			t.mu.Unlock()
			return &LostError{errors.Join(cause, ctx.Err())}
		}
		t.mu.Unlock()
		<-t.done
	}
	if t.err != nil {
		return &LostError{errors.Join(cause, t.err)}
	}
	t.f.Undo()
	return fmt.Errorf("mr: %w", cause)
}

// Abandon revokes without waiting: the memory goes back to its pool when the
// device is done with it. After Revoke it does nothing.
func (t *Grant) Abandon() {
	t.mu.Lock()
	if t.claimed || t.abandoned {
		t.mu.Unlock()
		return
	}
	t.abandoned = true
	t.mu.Unlock()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), t.g.cfg.Grace)
		defer cancel()
		t.fence(ctx)
	}()
}

// fence starts the fence, once. ctx bounds only the wait for room in the queue.
func (t *Grant) fence(ctx context.Context) {
	t.mu.Lock()
	if t.fencing {
		t.mu.Unlock()
		return
	}
	t.fencing = true
	byPeer, finished := t.byPeer, t.finished
	t.mu.Unlock()
	switch {
	case byPeer:
		t.loose()
		t.after(t.quarantine())
	case t.mech == ByWindow && t.g.onRXE && !finished:
		go t.deallocate()
	case t.mech == ByWindow:
		t.invalidate(ctx)
	default:
		go t.harder(nil) // both can take long
	}
}

// deallocate takes the right away without LOCAL_INV. rxe (Linux 6.1 and 6.12) panics
// when a window is invalidated twice: a peer that was not waited for may be sending
// its SEND with invalidate. A window that is no more is only an error to it.
func (t *Grant) deallocate() {
	late := time.NewTimer(t.g.cfg.Grace)
	defer late.Stop()
	select {
	case <-t.Bound():
		t.harder(nil)
	case <-late.C:
		// The bind may be on its way to the device still: it must not find a window
		// that is gone.
		t.kill([]error{fmt.Errorf("the bind has not completed within %v", t.g.cfg.Grace)})
	}
}

// invalidate posts LOCAL_INV. Of its completion and the end of the grace whatever
// comes first decides how the fence goes on.
func (t *Grant) invalidate(ctx context.Context) {
	if t.late == nil {
		t.late = time.AfterFunc(t.g.cfg.Grace, t.onLate)
	} else {
		t.late.Reset(t.g.cfg.Grace)
	}
	wr := verbs.SendWR{Opcode: verbs.WRLocalInv, Flags: verbs.SendSignaled, InvalidateRKey: t.remote.RKey}
	if err := t.q.PostControl(ctx, wr, t.onInv); err != nil {
		t.invalidated(fmt.Errorf("posting LOCAL_INV: %w", err))
	}
}

// invalidated takes the outcome of LOCAL_INV.
func (t *Grant) invalidated(err error) {
	if !t.decided.CompareAndSwap(false, true) {
		return
	}
	if !t.late.Stop() {
		t.odd.Store(true)
	}
	if err != nil {
		t.odd.Store(true)
		go t.harder(err) // a flush proves nothing
		return
	}
	t.loose()
	t.after(t.quarantine())
}

// tooLate goes on when LOCAL_INV has had its time.
func (t *Grant) tooLate() {
	if t.decided.CompareAndSwap(false, true) {
		t.odd.Store(true)
		t.harder(fmt.Errorf("LOCAL_INV has not completed within %v", t.g.cfg.Grace))
	}
}

// loose notes that the window is unbound.
func (t *Grant) loose() {
	t.mu.Lock()
	t.unbound = true
	t.mu.Unlock()
}

// after ends the grant when the device, which was told to stop, has had d to finish.
func (t *Grant) after(d time.Duration) {
	if d <= 0 {
		t.end(nil)
		return
	}
	t.g.settled(d, func() { t.end(nil) })
}

// harder goes through the fences that cost more, until one is proven.
func (t *Grant) harder(first error) {
	if first != nil {
		t.g.harder.Add(1)
	}
	errs := []error{first}
	switch t.mech {
	case ByWindow, ByRegion:
		err := t.free()
		if err == nil {
			t.freed()
			return
		}
		errs = append(errs, err)
		if first == nil {
			t.g.harder.Add(1)
		}
	}
	t.kill(errs)
}

// kill ends the queue pair, the last resort. errs is why.
func (t *Grant) kill(errs []error) {
	ctx, cancel := context.WithTimeout(context.Background(), t.g.cfg.Grace)
	defer cancel()
	t.g.killed.Add(1)
	destroyed, err := t.q.Kill(ctx)
	if err != nil {
		t.end(errors.Join(append(errs, err)...))
		return
	}
	if t.mech == ByRegion {
		// The key works on other queue pairs too: only deregistering ends it.
		if err := t.free(); err != nil {
			t.end(errors.Join(append(errs, err)...))
			return
		}
		t.freed()
		return
	}
	if destroyed {
		t.after(0)
		return
	}
	t.after(t.g.quiet)
}

// free deallocates the window or deregisters the region of the grant.
func (t *Grant) free() error {
	switch {
	case t.w != nil:
		return t.w.mw.Close()
	case t.mr != nil:
		return t.mr.Close()
	}
	return nil
}

// freed ends a grant after free. Deregistering waits for the device's own
// references; a window that is deallocated may be overrun as by LOCAL_INV.
func (t *Grant) freed() {
	if t.mech == ByWindow {
		if q, ok := t.q.(interface{ Unbound(verbs.RKey) }); ok {
			q.Unbound(t.remote.RKey)
		}
		t.after(t.g.quiet)
		return
	}
	t.after(0)
}

// end is called once: with nil when the device is done, with an error when
// nothing proves that.
func (t *Grant) end(err error) {
	t.mu.Lock()
	release := false
	if err != nil {
		t.f.Leak(err.Error())
		t.err = fmt.Errorf("mr: the memory of a grant is leaked, for nothing proves that the device is done: %w", err)
	} else {
		release = t.abandoned
		t.g.revoked.Add(1)
	}
	t.ended = true
	t.mu.Unlock()
	if release {
		t.f.Release()
	}
	t.g.settle(t, err != nil)
	t.done <- struct{}{}
}
