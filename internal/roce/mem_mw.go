package roce

import (
	"sync/atomic"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
)

// mw is a memory window: type 1, or type 2B, which one queue pair alone can use.
type mw struct {
	p    *pd
	n    *node
	typ  provider.MWType
	slot *memSlot
	id   uint64
	mr   *mr           // bound to it, or nil; guarded by n.mu
	rkey atomic.Uint32 // what the application holds to be the key
}

var _ provider.MW = (*mw)(nil)

// AllocMW makes a window that is not bound.
//
// Verb: ibv_alloc_mw(3).
func (p *pd) AllocMW(t provider.MWType) (provider.MW, error) {
	if t != provider.MWType1 && t != provider.MWType2 {
		return nil, syscall.EINVAL
	}
	n := p.n
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.mem.alloc(windowSlot)
	if s == nil {
		return nil, syscall.ENOMEM
	}
	w := &mw{p: p, n: n, typ: t, slot: s, id: s.handle()}
	w.rkey.Store(s.key)
	s.mw, s.pd = w, p.id
	p.refs++
	return w, nil
}

// Handle names the window in work requests.
func (w *mw) Handle() uint64 { return w.id }

// RKey is the key of the last bind.
func (w *mw) RKey() provider.RKey { return provider.RKey(w.rkey.Load()) }

// SetRKey stores the key of a posted bind.
func (w *mw) SetRKey(k provider.RKey) { w.rkey.Store(uint32(k)) }

// Close frees the window and what it was bound to.
//
// Verb: ibv_dealloc_mw(3).
func (w *mw) Close() error {
	w.n.mu.Lock()
	defer w.n.mu.Unlock()
	w.n.mem.unbind(w)
	w.n.mem.release(w.slot, windowSlot)
	w.p.refs--
	return nil
}

// bindWR is the work request of ibv_bind_mw on a type 1 window. When it was
// posted, the poster stores wr.RKey with SetRKey.
func (w *mw) bindWR(m *mr, id uint64, flags provider.SendFlags, addr, length uint64, access provider.AccessFlags) (provider.WR, error) {
	if w.typ != provider.MWType1 || access&provider.AccessZeroBased != 0 {
		return provider.WR{}, syscall.EINVAL
	}
	if m != nil {
		m.n.mu.Lock()
		p := m.p
		m.n.mu.Unlock()
		if p != w.p {
			return provider.WR{}, syscall.EPERM
		}
	}
	k := w.rkey.Load()
	wr := provider.WR{ID: id, Opcode: provider.WRBindMW, Flags: flags, RKey: provider.RKey(k&^0xff | uint32(uint8(k)+1)),
		MW: w.id, BindAddr: addr, BindLength: length, BindAccess: access}
	if m != nil {
		wr.MR = m.id
	}
	return wr, nil
}

// unbind takes the rights of a window away. Its key stays known, so that nothing
// else gets it.
func (t *memTable) unbind(w *mw) {
	if w.mr == nil {
		return
	}
	w.mr.windows--
	w.mr = nil
	if s := w.slot; s.qpn != 0 {
		delete(t.byQP[s.qpn], w)
		if set := t.byQP[s.qpn]; len(set) == 0 {
			delete(t.byQP, s.qpn)
			if len(t.spare) < maxSpareSets {
				t.spare = append(t.spare, set)
			}
		}
		s.qpn = 0
	}
	w.slot.access = 0
}

// maxSpareSets bounds the empty sets kept, so that a window that comes and goes
// allocates nothing.
const maxSpareSets = 16

func (t *memTable) newSet() mwSet {
	if n := len(t.spare); n > 0 {
		s := t.spare[n-1]
		t.spare = t.spare[:n-1]
		return s
	}
	return mwSet{}
}

// forgetQP unbinds the type 2 windows of a queue pair that is destroyed: the next
// one of its number has no right to them.
func (t *memTable) forgetQP(qpn uint32) {
	for w := range t.byQP[qpn] {
		t.unbind(w)
	}
}

// Bind implements rc.Memory. The low byte of the key is the poster's choice, the
// rest is the window's. A type 1 window may be bound again at any time, or be
// unbound by a length of 0; a type 2 window only when it is not bound.
func (v *memView) Bind(wr *provider.WR) bool {
	ws, ms := v.t.byHandle(wr.MW), v.t.byHandle(wr.MR)
	if ws == nil || ws.mw == nil || ws.pd != v.p.id || wr.BindAccess&^(remoteAccess|provider.AccessZeroBased) != 0 {
		return false
	}
	w := ws.mw
	zero := wr.BindAccess&provider.AccessZeroBased != 0
	if w.typ == provider.MWType1 {
		if zero {
			return false
		}
		if wr.BindLength == 0 {
			v.t.unbind(w)
			ws.setTag(wr.RKey)
			return true
		}
	} else if w.mr != nil || wr.BindLength == 0 {
		return false
	}
	if ms == nil || ms.mr == nil || ms.pd != v.p.id || ms.access&provider.AccessMWBind == 0 ||
		needLocalWrite(wr.BindAccess, ms.access) != nil || !ms.within(wr.BindAddr, wr.BindLength) {
		return false
	}
	v.t.unbind(w)
	w.mr = ms.mr
	w.mr.windows++
	ws.setTag(wr.RKey)
	ws.access = wr.BindAccess&remoteAccess | slotMW
	ws.va, ws.length, ws.mem = wr.BindAddr, wr.BindLength, ms.mem+(wr.BindAddr-ms.va)
	if zero {
		ws.va = 0
	}
	if w.typ == provider.MWType2 {
		ws.qpn = v.qpn
		if v.t.byQP == nil {
			v.t.byQP = map[uint32]mwSet{}
		}
		if v.t.byQP[v.qpn] == nil {
			v.t.byQP[v.qpn] = v.t.newSet()
		}
		v.t.byQP[v.qpn][w] = struct{}{}
	}
	return true
}

func (s *memSlot) setTag(k provider.RKey) { s.key = s.key&^0xff | uint32(k)&0xff }

// Invalidate implements rc.Memory: it unbinds a type 2 window, which only its
// queue pair can do. Keys of regions made by registration cannot be invalidated.
func (v *memView) Invalidate(rkey provider.RKey, _ bool) bool {
	s := v.t.find(uint32(rkey))
	if s == nil || s.access&slotMW == 0 || s.mw == nil || s.mw.typ != provider.MWType2 || s.pd != v.p.id || s.qpn != v.qpn {
		return false
	}
	v.t.unbind(s.mw)
	return true
}
