package prom

import (
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

// Collector is a prometheus.Collector.
type Collector struct {
	mu      sync.Mutex
	sources map[key]func(chan<- prometheus.Metric) // guarded by mu
	calls   *prometheus.HistogramVec
	handled *prometheus.HistogramVec
}

type key struct{ kind, name string }

var _ prometheus.Collector = (*Collector)(nil)

// New makes a collector of nothing. Register it.
func New() *Collector {
	h := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help,
			Buckets: prometheus.ExponentialBuckets(4e-6, 2, 22)}, []string{"name", "method", "code"}) // 4 us to 8 s
	}
	return &Collector{sources: map[key]func(chan<- prometheus.Metric){},
		calls:   h("zrdma_rpc_client_call_seconds", "How long calls took, as their caller saw it."),
		handled: h("zrdma_rpc_server_call_seconds", "How long calls took from the request's arrival to the end of everything about them."),
	}
}

// Describe is prometheus.Collector's.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, deviceMetrics)
	describe(ch, engineMetrics)
	describe(ch, poolMetrics)
	describe(ch, granterMetrics)
	describe(ch, cacheMetrics)
	describe(ch, clientMetrics)
	describe(ch, serverMetrics)
	for _, d := range []*prometheus.Desc{errorsDesc, portDesc, slotsDesc, freeDesc} {
		ch <- d
	}
	c.calls.Describe(ch)
	c.handled.Describe(ch)
}

// Collect is prometheus.Collector's.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock() // held, so that nothing is read after its remove has returned
	for _, f := range c.sources {
		f(ch)
	}
	c.mu.Unlock()
	c.calls.Collect(ch)
	c.handled.Collect(ch)
}

// add panics for a name that is taken: two of one name would be one in Prometheus.
func (c *Collector) add(kind, name string, f func(chan<- prometheus.Metric)) (remove func()) {
	k := key{kind, name}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.sources[k]; ok {
		panic(fmt.Sprintf("prom: the %s %q is there already; remove it first, or name this one differently", kind, name))
	}
	c.sources[k] = f
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.sources, k)
	}
}

// Device adds a device: its connections, engines, pool and port counters.
func (c *Collector) Device(name string, d *qp.Device) (remove func()) {
	return c.add("device", name, func(ch chan<- prometheus.Metric) {
		s := d.Stats()
		collect(ch, deviceMetrics, s, name)
		for status, n := range s.Errors {
			ch <- prometheus.MustNewConstMetric(errorsDesc, prometheus.CounterValue, float64(n), name, status.String())
		}
		for i, e := range d.Engines() {
			collect(ch, engineMetrics, e.Stats(), name, fmt.Sprint(i))
		}
		collectPool(ch, "device:"+name, d.Pool().Stats())
		for counter, n := range d.Counters() {
			ch <- prometheus.MustNewConstMetric(portDesc, prometheus.CounterValue, float64(n), name, fmt.Sprint(d.Port()), counter)
		}
	})
}

// Pool adds a pool that is no device's.
func (c *Collector) Pool(name string, p *mr.Pool) (remove func()) {
	return c.add("pool", name, func(ch chan<- prometheus.Metric) { collectPool(ch, name, p.Stats()) })
}

func collectPool(ch chan<- prometheus.Metric, name string, s mr.PoolStats) {
	collect(ch, poolMetrics, s, name)
	for _, x := range s.Classes {
		size := fmt.Sprint(x.Size)
		ch <- prometheus.MustNewConstMetric(slotsDesc, prometheus.GaugeValue, float64(x.Slots), name, size)
		ch <- prometheus.MustNewConstMetric(freeDesc, prometheus.GaugeValue, float64(x.Free), name, size)
	}
}

// Granter adds a granter of memory windows.
func (c *Collector) Granter(name string, g *mr.Granter) (remove func()) {
	return c.add("granter", name, func(ch chan<- prometheus.Metric) { collect(ch, granterMetrics, g.Stats(), name) })
}

// Cache adds a registration cache.
func (c *Collector) Cache(name string, x *mr.Cache) (remove func()) {
	return c.add("cache", name, func(ch chan<- prometheus.Metric) { collect(ch, cacheMetrics, x.Stats(), name) })
}

// Client adds a client of package rpc. How long its calls take: OnCall.
func (c *Collector) Client(name string, x *rpc.Client) (remove func()) {
	return c.add("client", name, func(ch chan<- prometheus.Metric) { collect(ch, clientMetrics, x.Stats(), name) })
}

// Server adds a server of package rpc. How long its calls take: OnHandled.
func (c *Collector) Server(name string, x *rpc.Server) (remove func()) {
	return c.add("server", name, func(ch chan<- prometheus.Metric) { collect(ch, serverMetrics, x.Stats(), name) })
}

// OnCall is a hook for rpc.Config.OnCall.
func (c *Collector) OnCall(name string) func(*rpc.Stages) {
	return func(s *rpc.Stages) {
		c.calls.WithLabelValues(name, s.Method, rpc.CodeOf(s.Err).String()).Observe(s.Completed.Seconds())
	}
}

// OnHandled is a hook for rpc.ServerConfig.OnHandled.
func (c *Collector) OnHandled(name string) func(*rpc.Stages) {
	return func(s *rpc.Stages) {
		c.handled.WithLabelValues(name, s.Method, rpc.CodeOf(s.Err).String()).Observe(s.Completed.Seconds())
	}
}
