package handle

import (
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// record is what is remembered of an open object. It never points at the
// object or its parents, so a forgotten object can be collected and noticed.
type record struct {
	kind  string
	from  [maxParents]uint64 // ids of the parents; guarded by liveMu
	pcs   [16]uintptr
	n     int
	ended atomic.Bool
}

var (
	liveMu sync.Mutex
	live   = map[*record]struct{}{}

	reporter atomic.Pointer[func(kind, stack string)]
)

func track(kind string, parents [maxParents]*Handle) *record {
	r := &record{kind: kind}
	for i, p := range parents {
		if p != nil {
			r.from[i] = p.id
		}
	}
	r.n = runtime.Callers(4, r.pcs[:])
	liveMu.Lock()
	live[r] = struct{}{}
	liveMu.Unlock()
	return r
}

func (r *record) adopt(i int, p *Handle) {
	liveMu.Lock()
	r.from[i] = p.id
	liveMu.Unlock()
}

// madeFrom names the kinds of the open objects that were made from the one with
// the id: " (2 verbs.MR, 1 verbs.QP)".
func madeFrom(id uint64) string {
	n := map[string]int{}
	liveMu.Lock()
	for r := range live {
		if slices.Contains(r.from[:], id) {
			n[r.kind]++
		}
	}
	liveMu.Unlock()
	if id == 0 || len(n) == 0 {
		return ""
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(n)) {
		parts = append(parts, fmt.Sprintf("%d %s", n[kind], kind))
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func untrack(r *record) {
	if r == nil {
		return
	}
	r.ended.Store(true)
	liveMu.Lock()
	delete(live, r)
	liveMu.Unlock()
}

func (r *record) stack() string {
	var b strings.Builder
	fr := runtime.CallersFrames(r.pcs[:r.n])
	for {
		f, more := fr.Next()
		fmt.Fprintf(&b, "%s\n\t%s:%d\n", f.Function, f.File, f.Line)
		if !more {
			return b.String()
		}
	}
}

// Watch makes the collection of obj without Close a report. It frees nothing:
// two cleanups have no order, and a verbs object must close before its parent.
func Watch[T any](obj *T, h *Handle) {
	runtime.AddCleanup(obj, func(r *record) {
		if r.ended.Load() {
			return
		}
		untrack(r)
		if f := reporter.Load(); f != nil {
			(*f)(r.kind, r.stack())
			return
		}
		slog.Warn("zrdma: object was dropped without Close and is leaked", "kind", r.kind, "created", r.stack())
	}, h.rec)
}

// OnLeak replaces the report of a leaked object; nil restores the log line.
func OnLeak(f func(kind, stack string)) {
	if f == nil {
		reporter.Store(nil)
		return
	}
	reporter.Store(&f)
}

// Live lists the open objects, each with the stack that created it.
func Live() []string {
	liveMu.Lock()
	defer liveMu.Unlock()
	var out []string
	for r := range live {
		out = append(out, r.kind+" created at\n"+r.stack())
	}
	return out
}
