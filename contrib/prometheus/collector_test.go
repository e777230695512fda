package prom

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/zrdma/zrdma/mr"
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

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// everything is a collector of one of each kind, which have done something.
func everything(t *testing.T) *Collector {
	c := New()
	net := rdmatest.NewNetwork(t, 1)
	open := func() *qp.Device {
		d := must[*qp.Device](t)(qp.Open(qp.DeviceConfig{Context: net.Device(t).Context}))
		t.Cleanup(func() { check(t, d.Close()) })
		return d
	}
	ds, dc := open(), open()
	s := must[*rpc.Server](t)(rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: ds}, OnHandled: c.OnHandled("blocks")}))
	t.Cleanup(func() { check(t, s.Close()) })
	s.Handle("echo", func(_ context.Context, k *rpc.ServerCall) error { return k.Reply(k.Body) })
	l := must[*rpc.Listener](t)(s.Listen(t.Context(), "10.0.0.1:0"))
	go s.Serve(l)
	cl := must[*rpc.Client](t)(rpc.Dial(t.Context(), l.Addr(), rpc.Config{Device: dc, OnCall: c.OnCall("blocks")}))
	t.Cleanup(func() { check(t, cl.Close()) })
	for range 5 {
		must[*rpc.Reply](t)(cl.Call(t.Context(), "echo", []byte("hello"))).Release()
	}
	if _, err := cl.Call(t.Context(), "nothing", nil); rpc.CodeOf(err) != rpc.Unimplemented {
		t.Error(err)
	}
	pool := must[*mr.Pool](t)(mr.NewPool(mr.PoolConfig{}, dc.PD()))
	granter := must[*mr.Granter](t)(mr.NewGranter(dc.PD(), mr.GranterConfig{}))
	cache := must[*mr.Cache](t)(mr.NewCache(mr.CacheConfig{}, dc.PD()))
	t.Cleanup(func() { check(t, pool.Close()); check(t, granter.Close()); check(t, cache.Close()) })
	b := must[mr.Buf](t)(pool.Get(t.Context(), 100))
	t.Cleanup(func() { _ = b.Release() })
	for _, remove := range []func(){
		c.Device("server", ds), c.Device("client", dc), c.Server("blocks", s), c.Client("blocks", cl),
		c.Pool("own", pool), c.Granter("own", granter), c.Cache("own", cache),
	} {
		t.Cleanup(remove)
	}
	return c
}

func TestCollector(t *testing.T) {
	c := everything(t)
	r := prometheus.NewPedanticRegistry()
	check(t, r.Register(c))
	if l, err := testutil.GatherAndLint(r); err != nil || len(l) > 0 {
		t.Error(l, err)
	}
	// As Prometheus sees it. A call is counted when nothing of it goes on, which may
	// be after its answer has come.
	wait(t, func() bool { return testutil.CollectAndCount(c.handled) == 1 && handled(c, "echo") == 5 })
	s := httptest.NewServer(promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	defer s.Close()
	resp := must[*http.Response](t)(http.Get(s.URL))
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(t, err)
	text := string(body)
	for _, want := range []string{
		`zrdma_rpc_client_calls_total{name="blocks"} 6`,
		`zrdma_rpc_server_calls_total{name="blocks"} 5`,
		`zrdma_rpc_server_sessions_open{name="blocks"} 1`,
		`zrdma_rpc_client_call_seconds_count{code="OK",method="echo",name="blocks"} 5`,
		`zrdma_rpc_client_call_seconds_count{code="UNIMPLEMENTED",method="nothing",name="blocks"} 1`,
		`zrdma_rpc_server_call_seconds_count{code="OK",method="echo",name="blocks"} 5`,
		`zrdma_qp_connections{device="client"} 2`,
		`zrdma_engine_queue_pairs{device="client",engine="0"} 2`,
		`zrdma_pool_registered_bytes{pool="device:client"} 3.3554432e+07`,
		`zrdma_pool_buffers{pool="own",size="4096"} `,
		`zrdma_grants_open{granter="own"} 0`,
		`zrdma_cache_entries{cache="own"} 0`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	for name := range described(c) {
		if !strings.Contains(text, "# TYPE "+name+" ") &&
			name != errorsName && name != portName { // nothing failed, and this device has no port counters
			t.Errorf("%s was described and not collected", name)
		}
	}
}

// handled is how many calls of a method the server is done with.
func handled(c *Collector, method string) uint64 {
	var m dto.Metric
	o, err := c.handled.GetMetricWithLabelValues("blocks", method, "OK")
	if err != nil || o.(prometheus.Histogram).Write(&m) != nil {
		return 0
	}
	return m.GetHistogram().GetSampleCount()
}

func wait(t *testing.T, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}

const errorsName, portName = "zrdma_qp_errors_total", "zrdma_port_counter_total"

func TestNamesAreUnique(t *testing.T) {
	c := New()
	d := must[*qp.Device](t)(qp.Open(qp.DeviceConfig{Context: rdmatest.NewNetwork(t, 1).Device(t).Context}))
	defer d.Close()
	remove := c.Device("a", d)
	defer c.Device("b", d)()
	func() {
		defer func() {
			if recover() == nil {
				t.Error("two of one name")
			}
		}()
		c.Device("a", d)
	}()
	remove()
	c.Device("a", d)()
}

// described are the names of all metrics of the collector.
func described(c *Collector) map[string]bool {
	ch := make(chan *prometheus.Desc, 1000)
	c.Describe(ch)
	close(ch)
	names := map[string]bool{}
	for d := range ch {
		names[regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1]] = true
	}
	return names
}

// missing are the metrics that a dashboard asks for and nobody collects.
func missing(t *testing.T, dashboard []byte, names map[string]bool) (used int, bad []string) {
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	check(t, json.Unmarshal(dashboard, &d))
	for _, p := range d.Panels {
		for _, x := range p.Targets {
			found := regexp.MustCompile(`\bzrdma_\w+`).FindAllString(x.Expr, -1)
			if len(found) == 0 {
				bad = append(bad, p.Title+": no metric in "+x.Expr)
			}
			for _, n := range found {
				used++
				base := n
				if strings.HasSuffix(n, "_seconds_bucket") {
					base = strings.TrimSuffix(n, "_bucket")
				}
				if !names[base] {
					bad = append(bad, p.Title+": "+n)
				}
			}
		}
	}
	return used, bad
}

func TestDashboard(t *testing.T) {
	names := described(New())
	b := must[[]byte](t)(os.ReadFile("dashboard.json"))
	used, bad := missing(t, b, names)
	if used < 20 || len(bad) > 0 {
		t.Error(used, bad)
	}
	delete(names, "zrdma_qp_connections") // the test can fail
	if _, bad := missing(t, b, names); len(bad) != 1 {
		t.Error(bad)
	}
}
