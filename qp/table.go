package qp

import (
	"sync"
	"sync/atomic"

	"github.com/zrdma/zrdma/verbs"
)

// handler takes the completions of one queue pair. It is called by the engine's
// goroutine only; wc is lent for the call.
type handler interface {
	complete(wc *verbs.WC)
	// settle is called once after every batch that had completions of its own.
	settle()
	// fail ends it, for an error of the engine.
	fail(err error)
}

// table finds a handler by queue pair number: reading takes no lock. Numbers
// have 24 bits; the pages of a number's upper 12 are made as they are needed.
type table struct {
	mu    sync.Mutex // serialises writers
	pages [1 << 12]atomic.Pointer[page]
	n     int // guarded by mu
}

type page [1 << 12]atomic.Pointer[handler]

func (t *table) get(qpn uint32) handler {
	p := t.pages[qpn>>12&0xfff].Load()
	if p == nil {
		return nil
	}
	h := p[qpn&0xfff].Load()
	if h == nil {
		return nil
	}
	return *h
}

func (t *table) set(qpn uint32, h handler) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := &t.pages[qpn>>12&0xfff]
	p := slot.Load()
	if p == nil {
		p = new(page)
		slot.Store(p)
	}
	if p[qpn&0xfff].Swap(&h) == nil {
		t.n++
	}
}

// remove forgets h. The number may have gone to another queue pair already.
func (t *table) remove(qpn uint32, h handler) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.pages[qpn>>12&0xfff].Load(); p != nil {
		slot := &p[qpn&0xfff]
		if x := slot.Load(); x != nil && *x == h {
			slot.Store(nil)
			t.n--
		}
	}
}

// each calls f for every handler there is.
func (t *table) each(f func(handler)) {
	for i := range t.pages {
		p := t.pages[i].Load()
		if p == nil {
			continue
		}
		for j := range p {
			if h := p[j].Load(); h != nil {
				f(*h)
			}
		}
	}
}

func (t *table) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}
