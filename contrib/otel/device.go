package zotel

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/zrdma/zrdma/qp"
)

// ObserveDevice reports the counts of a device's connections and memory, under
// zrdma.*, with name as the attribute zrdma.device, until stop is called.
func (i *Instruments) ObserveDevice(name string, d *qp.Device) (stop func() error, err error) {
	var errs []error
	counter := func(name, help string) metric.Int64ObservableCounter {
		c, err := i.meter.Int64ObservableCounter("zrdma."+name, metric.WithDescription(help))
		errs = append(errs, err)
		return c
	}
	gauge := func(name, unit, help string) metric.Int64ObservableGauge {
		g, err := i.meter.Int64ObservableGauge("zrdma."+name, metric.WithUnit(unit), metric.WithDescription(help))
		errs = append(errs, err)
		return g
	}
	opened := counter("qp.connections.opened", "Connections ever made.")
	posted := counter("qp.posted", "Work requests posted.")
	completed := counter("qp.completed", "Work requests completed.")
	received := counter("qp.received", "Messages received.")
	failed := counter("qp.errors", "Completions that failed, by status.")
	sendStalls := counter("qp.send.stalls", "Waits for a place in a send queue.")
	creditStalls := counter("qp.credit.stalls", "Waits for the peer to make room.")
	conns := gauge("qp.connections", "{connection}", "Connections that are open.")
	inFlight := gauge("qp.in_flight", "{request}", "Work requests posted and not completed.")
	registered := gauge("pool.registered", "By", "Memory registered.")
	leaked := gauge("pool.leaked", "By", "Memory that is never used again.")
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("zotel: %w", err)
	}
	which := attribute.String("zrdma.device", name)
	r, err := i.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s, p := d.Stats(), d.Pool().Stats()
		at := metric.WithAttributes(which)
		o.ObserveInt64(opened, int64(s.Opened), at)
		o.ObserveInt64(posted, int64(s.Posted), at)
		o.ObserveInt64(completed, int64(s.Completed), at)
		o.ObserveInt64(received, int64(s.Received), at)
		o.ObserveInt64(sendStalls, int64(s.SendStalls), at)
		o.ObserveInt64(creditStalls, int64(s.CreditStalls), at)
		o.ObserveInt64(conns, int64(s.Conns), at)
		o.ObserveInt64(inFlight, int64(s.InFlight), at)
		o.ObserveInt64(registered, p.Registered, at)
		o.ObserveInt64(leaked, p.LeakedBytes, at)
		for status, n := range s.Errors {
			o.ObserveInt64(failed, int64(n), metric.WithAttributes(which, attribute.String("zrdma.status", status.String())))
		}
		return nil
	}, opened, posted, completed, received, failed, sendStalls, creditStalls, conns, inFlight, registered, leaked)
	if err != nil {
		return nil, fmt.Errorf("zotel: %w", err)
	}
	return r.Unregister, nil
}
