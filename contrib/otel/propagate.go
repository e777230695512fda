package zotel

import (
	"go.opentelemetry.io/otel/trace"
)

// A trace on the wire: a mark that arguments of another kind do not begin with, the
// version, the flags, and the ids of trace and span.
const (
	mark        = "\x9dzotel\xc3"
	wireVersion = 1
	wireSize    = len(mark) + 1 + 4 + 16 + 8 // flags, and three bytes for later
)

// inject puts the trace in front of a copy of body; body is the caller's.
func inject(sc trace.SpanContext, body []byte) []byte {
	b := make([]byte, 0, wireSize+len(body))
	b = append(b, mark...)
	b = append(b, wireVersion, byte(sc.TraceFlags()), 0, 0, 0)
	t, s := sc.TraceID(), sc.SpanID()
	b = append(append(b, t[:]...), s[:]...)
	return append(b, body...)
}

// extract takes the trace off, if there is one.
func extract(body []byte) (trace.SpanContext, []byte) {
	if len(body) < wireSize || string(body[:len(mark)]) != mark || body[len(mark)] != wireVersion {
		return trace.SpanContext{}, body
	}
	p := body[len(mark)+1:]
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceFlags: trace.TraceFlags(p[0]), TraceID: trace.TraceID(p[4:20]), SpanID: trace.SpanID(p[20:28]), Remote: true,
	}), body[wireSize:]
}
