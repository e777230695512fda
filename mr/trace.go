package mr

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
)

var tracing atomic.Bool

// SetTracing makes every Buf that is acquired from now on remember where, and
// where it was last posted or released, for misuse errors and for Close. It
// costs about a microsecond for each. It is off by default.
func SetTracing(on bool) { tracing.Store(on) }

// trace is never changed once it is in a slot.
type trace struct {
	acquired, moved [12]uintptr
	na, nm          int
}

func (s *slot) traceAcquired() {
	t := &trace{}
	t.na = runtime.Callers(3, t.acquired[:])
	s.trace.Store(t)
}

func (s *slot) traceMoved() {
	t := &trace{}
	if old := s.trace.Load(); old != nil {
		t.acquired, t.na = old.acquired, old.na
	}
	t.nm = runtime.Callers(3, t.moved[:])
	s.trace.Store(t)
}

func stack(pcs []uintptr) string {
	if len(pcs) == 0 {
		return ""
	}
	var b strings.Builder
	for fr := runtime.CallersFrames(pcs); ; {
		f, more := fr.Next()
		fmt.Fprintf(&b, "\t%s\n\t\t%s:%d\n", f.Function, f.File, f.Line)
		if !more {
			return b.String()
		}
	}
}

// misuse says why a Buf of that word does not fit its holder. It may be called
// with or without the slot's lock.
func misuse(h *holder, op string, word uint64) error {
	w := h.word.Load()
	k := Released
	if w&^sharedBit == word+genStep|flyingBit {
		k = InFlight
	}
	return newMisuse(h.slot, op, k)
}

func newMisuse(s *slot, op string, k Misuse) error {
	if k != OutsideRange {
		s.acct.misuse.Add(1)
	}
	e := &MisuseError{Op: op, Kind: k}
	if t := s.trace.Load(); t != nil {
		e.Acquired, e.Moved = stack(t.acquired[:t.na]), stack(t.moved[:t.nm])
	}
	return e
}
