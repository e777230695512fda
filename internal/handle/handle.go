// Package handle is the life cycle that every verbs object shares: users pass a
// gate, a parent cannot close while children live, Close is idempotent, and
// what is dropped without Close is reported with the stack that created it.
package handle

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is returned by every method of an object that was closed. It is
// also net.ErrClosed.
var ErrClosed error = closedError{}

type closedError struct{}

func (closedError) Error() string        { return "object is closed" }
func (closedError) Is(target error) bool { return target == net.ErrClosed }

// ErrInUse is returned by Close while objects made from this one are open.
var ErrInUse = errors.New("object is in use")

var errParents = fmt.Errorf("handle: more than %d parents", maxParents)

const closedBit = int64(1) << 62

// A queue pair has the most parents: domain, two CQs, SRQ, XRC domain, RSS table.
const maxParents = 6

// Handle is embedded in every object. The zero value is not usable: see Init.
type Handle struct {
	gate     atomic.Int64 // users inside, plus closedBit
	children atomic.Int64
	mu       sync.Mutex // serialises Close
	done     bool       // guarded by mu
	parents  [maxParents]*Handle
	rec      *record
	id       uint64 // never used twice; 0 before Init
}

var lastID atomic.Uint64

// Init makes h ready, as a child of parents (nil ones are ignored). It fails
// with ErrClosed when a parent is closed. kind names the object in reports.
func (h *Handle) Init(kind string, parents ...*Handle) error {
	n := 0
	for _, p := range parents {
		if p == nil {
			continue
		}
		if n == len(h.parents) {
			h.release()
			return errParents
		}
		if err := p.Enter(); err != nil {
			h.release()
			return err
		}
		p.children.Add(1)
		p.Exit()
		h.parents[n] = p
		n++
	}
	h.id = lastID.Add(1)
	h.rec = track(kind, h.parents)
	return nil
}

// Abandon undoes Init after the object could not be created.
func (h *Handle) Abandon() {
	h.gate.Add(closedBit)
	h.done = true
	untrack(h.rec)
	h.release()
}

// AddParent makes h a child of p as well. Only before h is shared.
func (h *Handle) AddParent(p *Handle) error {
	for i := range h.parents {
		if h.parents[i] != nil {
			continue
		}
		if err := p.Enter(); err != nil {
			return err
		}
		p.children.Add(1)
		p.Exit()
		h.parents[i] = p
		h.rec.adopt(i, p)
		return nil
	}
	return errParents
}

func (h *Handle) release() {
	for i, p := range h.parents {
		if p != nil {
			p.children.Add(-1)
			h.parents[i] = nil
		}
	}
}

// Enter passes the gate; Exit must follow. It fails with ErrClosed.
func (h *Handle) Enter() error {
	if h.gate.Add(1)&closedBit != 0 {
		h.gate.Add(-1)
		return ErrClosed
	}
	return nil
}

// Exit leaves the gate.
func (h *Handle) Exit() { h.gate.Add(-1) }

// Closed reports whether Close succeeded or is under way.
func (h *Handle) Closed() bool { return h.gate.Load()&closedBit != 0 }

// Children is the number of open objects made from this one.
func (h *Handle) Children() int { return int(h.children.Load()) }

// Close runs destroy once, after the last user has left. A second Close is nil.
// With children it is ErrInUse; when destroy fails the object stays open.
// Users inside the gate never block, so the wait for them is short.
func (h *Handle) Close(destroy func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done {
		return nil
	}
	if n := h.children.Load(); n > 0 {
		return h.inUse(n)
	}
	h.gate.Add(closedBit)
	for i := 0; h.gate.Load() != closedBit; i++ {
		if i < 100 {
			runtime.Gosched()
		} else {
			time.Sleep(50 * time.Microsecond)
		}
	}
	// A child may have been born between the check and the gate.
	if n := h.children.Load(); n > 0 {
		h.gate.Add(-closedBit)
		return h.inUse(n)
	}
	if err := destroy(); err != nil {
		h.gate.Add(-closedBit)
		return err
	}
	h.done = true
	untrack(h.rec)
	h.release()
	return nil
}

func (h *Handle) inUse(n int64) error {
	return fmt.Errorf("%w: %d open object(s) were made from it%s; close them first", ErrInUse, n, madeFrom(h.id))
}
