package zotel

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/rpc"
)

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// setup is a server and a client, instrumented, each with a recorder of its spans.
type setup struct {
	client, server *tracetest.SpanRecorder
	reader         *sdk.ManualReader
	cl             *rpc.Client
	srv            *rpc.Server
}

func newSetup(t *testing.T, clientProp, serverProp bool) *setup {
	s := &setup{client: tracetest.NewSpanRecorder(), server: tracetest.NewSpanRecorder(), reader: sdk.NewManualReader()}
	mp := sdk.NewMeterProvider(sdk.WithReader(s.reader))
	make := func(r *tracetest.SpanRecorder, prop bool) *Instruments {
		return must[*Instruments](t)(New(Config{Tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r)), Meter: mp, Propagate: prop}))
	}
	in, out := make(s.server, serverProp), make(s.client, clientProp)
	net := rdmatest.NewNetwork(t, 1)
	open := func() *qp.Device {
		d := must[*qp.Device](t)(qp.Open(qp.DeviceConfig{Context: net.Device(t).Context}))
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		return d
	}
	ds, dc := open(), open()
	stop := must[func() error](t)(out.ObserveDevice("client", dc))
	srv := must[*rpc.Server](t)(rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: ds}, Interceptors: []rpc.ServerInterceptor{in.Server}}))
	s.srv = srv
	srv.Handle("echo", func(ctx context.Context, c *rpc.ServerCall) error {
		if !trace.SpanContextFromContext(ctx).IsValid() {
			t.Error("the handler has no span")
		}
		if string(c.Body) == "fail" {
			return rpc.Errorf(rpc.NotFound, "no such thing")
		}
		return c.Reply(c.Body)
	})
	l := must[*rpc.Listener](t)(srv.Listen(t.Context(), "10.0.0.1:0"))
	go srv.Serve(l)
	s.cl = must[*rpc.Client](t)(rpc.Dial(t.Context(), l.Addr(), rpc.Config{Device: dc, ClientInterceptors: []rpc.ClientInterceptor{out.Client}}))
	t.Cleanup(func() {
		if err := errors.Join(s.cl.Close(), srv.Close(), stop()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *setup) echo(t *testing.T, body string) string {
	t.Helper()
	r := must[*rpc.Reply](t)(s.cl.Call(t.Context(), "echo", []byte(body)))
	defer r.Release()
	return string(r.Body)
}

func TestPropagation(t *testing.T) {
	for _, x := range []struct {
		name           string
		client, server bool
		same           bool
	}{{"both", true, true, true}, {"server only", false, true, false}, {"neither", false, false, false}} {
		t.Run(x.name, func(t *testing.T) {
			s := newSetup(t, x.client, x.server)
			if got := s.echo(t, "hello"); got != "hello" {
				t.Errorf("%q", got)
			}
			if _, err := s.cl.Call(t.Context(), "echo", []byte("fail")); rpc.CodeOf(err) != rpc.NotFound {
				t.Error(err)
			}
			if err := errors.Join(s.cl.Close(), s.srv.Close()); err != nil { // the server's spans have ended
				t.Fatal(err)
			}
			c, d := inOrder(s.client), inOrder(s.server)
			if len(c) != 2 || len(d) != 2 {
				t.Fatal(len(c), len(d))
			}
			for i := range c {
				if c[i].Name() != "echo" || c[i].SpanKind() != trace.SpanKindClient || d[i].SpanKind() != trace.SpanKindServer {
					t.Error(c[i], d[i])
				}
				if same := c[i].SpanContext().TraceID() == d[i].SpanContext().TraceID(); same != x.same {
					t.Errorf("one trace: %v", same)
				}
				if child := d[i].Parent().SpanID() == c[i].SpanContext().SpanID() && d[i].Parent().IsRemote(); child != x.same {
					t.Errorf("child: %v", child)
				}
				want, status := "OK", codes.Unset
				if i == 1 {
					want, status = "NOT_FOUND", codes.Error
				}
				for _, sp := range []sdktrace.ReadOnlySpan{c[i], d[i]} {
					set := attribute.NewSet(sp.Attributes()...)
					if v, _ := set.Value("rpc.response.status_code"); v.AsString() != want || sp.Status().Code != status {
						t.Error(sp.Name(), v, sp.Status())
					}
				}
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	s := newSetup(t, true, true)
	for range 4 {
		s.echo(t, "hello")
	}
	got := s.collect(t)
	for end := time.Now().Add(20 * time.Second); got["rpc.server.call.duration"] < 4 && time.Now().Before(end); got = s.collect(t) {
		time.Sleep(time.Millisecond) // a handler may return after its answer has come
	}
	for name, least := range map[string]int64{"rpc.client.call.duration": 4, "rpc.server.call.duration": 4, "zrdma.qp.connections": 2,
		"zrdma.qp.connections.opened": 2, "zrdma.qp.posted": 4, "zrdma.qp.received": 4, "zrdma.pool.registered": 1 << 20} {
		if got[name] < least {
			t.Errorf("%s is %d, not %d; all: %v", name, got[name], least, got)
		}
	}
}

// inOrder are spans as they began: a handler may return after its answer has come.
func inOrder(r *tracetest.SpanRecorder) []sdktrace.ReadOnlySpan {
	l := r.Ended()
	slices.SortFunc(l, func(a, b sdktrace.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) })
	return l
}

// collect sums the measurements by name.
func (s *setup) collect(t *testing.T) map[string]int64 {
	var rm metricdata.ResourceMetrics
	if err := s.reader.Collect(t.Context(), &rm); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, sm := range rm.ScopeMetrics {
		for _, m := range sm.Metrics {
			switch d := m.Data.(type) {
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					got[m.Name] += int64(p.Count)
				}
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					got[m.Name] += p.Value
				}
			case metricdata.Gauge[int64]:
				for _, p := range d.DataPoints {
					got[m.Name] += p.Value
				}
			}
		}
	}
	return got
}

func FuzzExtract(f *testing.F) {
	f.Add([]byte("hello"))
	f.Add(inject(trace.SpanContext{}, []byte("hello")))
	f.Fuzz(func(t *testing.T, b []byte) {
		sc, rest := extract(b)
		if !bytes.HasSuffix(b, rest) || len(rest) != len(b) && len(rest) != len(b)-wireSize {
			t.Errorf("%x of %x", rest, b)
		}
		if sc2, same := extract(inject(sc, b)); !bytes.Equal(same, b) || sc2.SpanID() != sc.SpanID() || sc2.TraceID() != sc.TraceID() {
			t.Errorf("%x became %x", b, same)
		}
	})
}
