package zotel

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/zrdma/zrdma/rpc"
)

// scope names this package in what it makes.
const scope = "github.com/zrdma/zrdma/contrib/otel"

// Config says where spans and measurements go. The zero value is good.
type Config struct {
	Tracer trace.TracerProvider // nil: otel.GetTracerProvider()
	Meter  metric.MeterProvider // nil: otel.GetMeterProvider()
	// Propagate carries the trace from client to server, in front of the arguments
	// of every call. A server that does not have it gets arguments that it does not
	// know, so set it there first: one that has it takes calls with and without.
	Propagate bool
}

// Instruments are interceptors and metrics. Make them with New.
type Instruments struct {
	propagate      bool
	tracer         trace.Tracer
	meter          metric.Meter
	client, server metric.Float64Histogram
}

// New makes instruments.
func New(cfg Config) (*Instruments, error) {
	if cfg.Tracer == nil {
		cfg.Tracer = otel.GetTracerProvider()
	}
	if cfg.Meter == nil {
		cfg.Meter = otel.GetMeterProvider()
	}
	i := &Instruments{propagate: cfg.Propagate, tracer: cfg.Tracer.Tracer(scope), meter: cfg.Meter.Meter(scope)}
	var err error
	if i.client, err = i.histogram("rpc.client.call.duration", "How long calls took, as their caller saw it."); err != nil {
		return nil, err
	}
	i.server, err = i.histogram("rpc.server.call.duration", "How long handlers took.")
	return i, err
}

func (i *Instruments) histogram(name, help string) (metric.Float64Histogram, error) {
	h, err := i.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(help),
		metric.WithExplicitBucketBoundaries(5e-6, 10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, .1, .25, .5, 1, 2.5, 5, 10))
	if err != nil {
		return nil, fmt.Errorf("zotel: %w", err)
	}
	return h, nil
}

func attributes(method string) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String("rpc.system.name", "zrdma"), attribute.String("rpc.method", method)}
}

// Client is an rpc.ClientInterceptor.
func (i *Instruments) Client(ctx context.Context, method string, body []byte, opts []rpc.Option, next rpc.Invoker) (*rpc.Reply, error) {
	start := time.Now()
	ctx, span := i.tracer.Start(ctx, method, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes(method)...))
	defer span.End()
	if i.propagate {
		body = inject(span.SpanContext(), body)
	}
	r, err := next(ctx, method, body, opts)
	if r != nil {
		span.SetAttributes(attribute.Int("zrdma.pushed_bytes", r.Pushed))
	}
	i.end(ctx, span, i.client, method, start, err)
	return r, err
}

// Server is an rpc.ServerInterceptor.
func (i *Instruments) Server(ctx context.Context, c *rpc.ServerCall, next rpc.Handler) error {
	start := time.Now()
	if i.propagate {
		var sc trace.SpanContext
		if sc, c.Body = extract(c.Body); sc.IsValid() {
			ctx = trace.ContextWithRemoteSpanContext(ctx, sc)
		}
	}
	ctx, span := i.tracer.Start(ctx, c.Method, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attributes(c.Method)...),
		trace.WithAttributes(attribute.String("network.peer.address", c.Peer()), attribute.Int("zrdma.in_bytes", c.InLen()), attribute.Int("zrdma.out_bytes", c.OutLen())))
	defer span.End()
	if c.Replay {
		span.SetAttributes(attribute.Bool("zrdma.replay", true))
	}
	err := next(ctx, c)
	i.end(ctx, span, i.server, c.Method, start, err)
	return err
}

func (i *Instruments) end(ctx context.Context, span trace.Span, h metric.Float64Histogram, method string, start time.Time, err error) {
	code := attribute.String("rpc.response.status_code", rpc.CodeOf(err).String())
	span.SetAttributes(code)
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	h.Record(ctx, time.Since(start).Seconds(), metric.WithAttributes(append(attributes(method), code)...))
}
