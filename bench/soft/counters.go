package main

import (
	"fmt"
	"strings"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/roce"
	"github.com/zrdma/zrdma/verbs"
)

// counters are those of devices together.
func counters(ctx ...*verbs.Context) (t roce.Counters) {
	for _, c := range ctx {
		p, ok := bridge.Inner(c).(interface{ Counters() roce.Counters })
		if !ok {
			continue
		}
		k := p.Counters()
		t.RC.NAKs += k.RC.NAKs
		t.RC.Timeouts += k.RC.Timeouts
		t.RC.Probes += k.RC.Probes
		t.RC.RNRs += k.RC.RNRs
		t.RC.Gaps += k.RC.Gaps
		t.RC.Repeats += k.RC.Repeats
		t.Link.TxPackets += k.Link.TxPackets
		t.Link.TxCalls += k.Link.TxCalls
		t.Link.RxCalls += k.Link.RxCalls
		t.Link.RxDropped += k.Link.RxDropped
		t.Link.TxDropped += k.Link.TxDropped
	}
	return t
}

// since says what happened between two counts: packets for each system call that
// sent or received some, and what went wrong.
func since(a, b roce.Counters) string {
	n := b.Link.TxPackets - a.Link.TxPackets
	if n == 0 {
		return ""
	}
	s := fmt.Sprintf("%d packets, %.1f a send, %.1f a receive", n, float64(n)/float64(b.Link.TxCalls-a.Link.TxCalls),
		float64(n)/float64(b.Link.RxCalls-a.Link.RxCalls))
	var bad []string
	for _, c := range []struct {
		n    uint64
		what string
	}{
		{b.RC.NAKs - a.RC.NAKs, "NAKs"}, {b.RC.Timeouts - a.RC.Timeouts, "time-outs"}, {b.RC.Probes - a.RC.Probes, "probes"},
		{b.RC.RNRs - a.RC.RNRs, "RNRs"}, {b.RC.Gaps - a.RC.Gaps, "gaps"}, {b.RC.Repeats - a.RC.Repeats, "repeats"},
		{b.Link.RxDropped - a.Link.RxDropped + b.Link.TxDropped - a.Link.TxDropped, "dropped"},
	} {
		if c.n > 0 {
			bad = append(bad, fmt.Sprint(c.n, " ", c.what))
		}
	}
	if bad != nil {
		s += "; " + strings.Join(bad, ", ")
	}
	return s
}
