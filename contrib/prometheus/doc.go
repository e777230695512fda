// Package prom is a Prometheus collector for zrdma: what the Stats methods of qp,
// mr and rpc count, the port counters of the kernel, and how long calls take.
//
//	c := prom.New()
//	prometheus.MustRegister(c)
//	defer c.Device("mlx5_0", dev)()
//	defer c.Server("blocks", srv)()
//	cl, err := rpc.Dial(ctx, addr, rpc.Config{OnCall: c.OnCall("blocks")})
//
// dashboard.json beside it is for Grafana. It is a module of its own, so that the
// Prometheus client is no dependency of zrdma.
//
// # Ownership
//
// The collector reads what it is given, at each scrape, until the function that it
// returned is called: call that before you close the thing. The names are yours:
// one name is given once for each kind of thing.
//
// # Concurrency
//
// Every method may be called from any goroutine.
//
// # Blocking
//
// A scrape takes the locks that Stats takes, and reads the files of the port
// counters in sysfs. The hooks OnCall and OnHandled do not block.
//
// # Cleanup
//
// Nothing but those functions.
package prom
