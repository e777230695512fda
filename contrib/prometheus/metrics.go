package prom

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

// metric is a number of a snapshot S.
type metric[S any] struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	get  func(S) float64
}

func describe[S any](ch chan<- *prometheus.Desc, l []metric[S]) {
	for _, m := range l {
		ch <- m.desc
	}
}

func collect[S any](ch chan<- prometheus.Metric, l []metric[S], s S, labels ...string) {
	for _, m := range l {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.get(s), labels...)
	}
}

// table makes metrics whose names begin with zrdma_ and prefix.
type table[S any] struct {
	prefix string
	labels []string
}

func (t table[S]) counter(name, help string, get func(S) uint64) metric[S] {
	return metric[S]{prometheus.NewDesc("zrdma_"+t.prefix+name+"_total", help, t.labels, nil), prometheus.CounterValue, func(s S) float64 { return float64(get(s)) }}
}

func (t table[S]) gauge(name, help string, get func(S) int) metric[S] {
	return metric[S]{prometheus.NewDesc("zrdma_"+t.prefix+name, help, t.labels, nil), prometheus.GaugeValue, func(s S) float64 { return float64(get(s)) }}
}

var (
	errorsDesc = prometheus.NewDesc("zrdma_qp_errors_total", "Completions that failed, by status; those of queue pairs that were closed are flush errors.", []string{"device", "status"}, nil)
	portDesc   = prometheus.NewDesc("zrdma_port_counter_total", "Counters of the kernel for the port, by their names in sysfs.", []string{"device", "port", "counter"}, nil)
	slotsDesc  = prometheus.NewDesc("zrdma_pool_buffers", "Buffers that exist, by their size in bytes.", []string{"pool", "size"}, nil)
	freeDesc   = prometheus.NewDesc("zrdma_pool_buffers_free", "About how many of them are free.", []string{"pool", "size"}, nil)
)

var (
	dev           = table[qp.DeviceStats]{"qp_", []string{"device"}}
	deviceMetrics = []metric[qp.DeviceStats]{
		dev.gauge("connections", "Connections that are open.", func(s qp.DeviceStats) int { return s.Conns }),
		dev.counter("connections_opened", "Connections ever made.", func(s qp.DeviceStats) uint64 { return s.Opened }),
		dev.counter("posted", "Work requests posted.", func(s qp.DeviceStats) uint64 { return s.Posted }),
		dev.counter("completed", "Work requests completed.", func(s qp.DeviceStats) uint64 { return s.Completed }),
		dev.gauge("in_flight", "Work requests posted and not completed.", func(s qp.DeviceStats) int { return s.InFlight }),
		dev.counter("doorbells", "Posts, each of one or more work requests.", func(s qp.DeviceStats) uint64 { return s.Doorbells }),
		dev.counter("received", "Messages received.", func(s qp.DeviceStats) uint64 { return s.Received }),
		dev.counter("abandoned", "Operations whose caller did not wait for the end.", func(s qp.DeviceStats) uint64 { return s.Abandoned }),
		dev.counter("copied_bytes", "Payload bytes that package qp copied.", func(s qp.DeviceStats) uint64 { return s.Copied }),
		dev.counter("send_stalls", "Waits for a place in a send queue.", func(s qp.DeviceStats) uint64 { return s.SendStalls }),
		dev.counter("credit_stalls", "Waits for the peer to make room.", func(s qp.DeviceStats) uint64 { return s.CreditStalls }),
		dev.gauge("send_waiting", "Who waits for a place in a send queue now.", func(s qp.DeviceStats) int { return s.SendWaiting }),
		dev.gauge("credit_waiting", "Who waits for the peer to make room now.", func(s qp.DeviceStats) int { return s.CreditWaiting }),
		dev.gauge("undelivered", "Messages received and not taken.", func(s qp.DeviceStats) int { return s.Undelivered }),
		dev.gauge("receives_posted", "Receives that the device has, shared ones excepted.", func(s qp.DeviceStats) int { return s.ReceivesPosted }),
	}

	eng           = table[qp.EngineStats]{"engine_", []string{"device", "engine"}}
	engineMetrics = []metric[qp.EngineStats]{
		eng.gauge("queue_pairs", "Queue pairs on the completion queue.", func(s qp.EngineStats) int { return s.QueuePairs }),
		eng.counter("completions", "Completions taken.", func(s qp.EngineStats) uint64 { return s.Completions }),
		eng.counter("batches", "Turns that found completions.", func(s qp.EngineStats) uint64 { return s.Batches }),
		eng.counter("orphans", "Completions of queue pairs that are gone.", func(s qp.EngineStats) uint64 { return s.Orphans }),
		eng.gauge("depth", "Size of the completion queue.", func(s qp.EngineStats) int { return s.Depth }),
		eng.gauge("reserved", "Completions that can be outstanding.", func(s qp.EngineStats) int { return s.Reserved }),
		eng.counter("arms", "Events asked for.", func(s qp.EngineStats) uint64 { return s.Wait.Arms }),
		eng.counter("sleeps", "Waits that were parked.", func(s qp.EngineStats) uint64 { return s.Wait.Sleeps }),
	}

	pool        = table[mr.PoolStats]{"pool_", []string{"pool"}}
	poolMetrics = []metric[mr.PoolStats]{
		pool.gauge("registered_bytes", "Memory registered.", func(s mr.PoolStats) int { return int(s.Registered) }),
		pool.gauge("limit_bytes", "Memory that may be registered.", func(s mr.PoolStats) int { return int(s.Limit) }),
		pool.counter("grow_failures", "Registrations that failed.", func(s mr.PoolStats) uint64 { return s.GrowFailures }),
		pool.counter("misuse", "Uses of a buffer that were refused.", func(s mr.PoolStats) uint64 { return s.Misuse }),
		pool.counter("damaged", "Writes outside a buffer, or after its release, that were seen.", func(s mr.PoolStats) uint64 { return s.Damaged }),
		pool.gauge("quarantined", "Buffers that wait for the device to have stopped.", func(s mr.PoolStats) int { return s.Quarantined }),
		pool.gauge("quarantined_bytes", "Their bytes.", func(s mr.PoolStats) int { return int(s.QuarantineBytes) }),
		pool.gauge("leaked", "Buffers that are never used again.", func(s mr.PoolStats) int { return s.Leaked }),
		pool.gauge("leaked_bytes", "Their bytes.", func(s mr.PoolStats) int { return int(s.LeakedBytes) }),
	}

	grant          = table[mr.GranterStats]{"grants_", []string{"granter"}}
	granterMetrics = []metric[mr.GranterStats]{
		grant.counter("granted", "Grants made.", func(s mr.GranterStats) uint64 { return s.Granted }),
		grant.counter("revoked", "Grants fenced.", func(s mr.GranterStats) uint64 { return s.Revoked }),
		grant.counter("revoked_hard", "Of them, those whose first fence failed.", func(s mr.GranterStats) uint64 { return s.Hard }),
		grant.counter("revoked_killed", "Of them, those that cost the queue pair.", func(s mr.GranterStats) uint64 { return s.Killed }),
		grant.gauge("open", "Grants that have not ended.", func(s mr.GranterStats) int { return s.Open }),
		grant.gauge("leaked", "Grants of which nothing could be proven.", func(s mr.GranterStats) int { return s.Leaked }),
	}

	cache        = table[mr.CacheStats]{"cache_", []string{"cache"}}
	cacheMetrics = []metric[mr.CacheStats]{
		cache.gauge("entries", "Registrations kept.", func(s mr.CacheStats) int { return s.Entries }),
		cache.gauge("pinned_bytes", "Memory pinned.", func(s mr.CacheStats) int { return int(s.Pinned) }),
		cache.gauge("in_use", "Registrations with a buffer out.", func(s mr.CacheStats) int { return s.InUse }),
		cache.counter("hits", "Buffers that were registered already.", func(s mr.CacheStats) uint64 { return s.Hits }),
		cache.counter("misses", "Buffers that had to be registered.", func(s mr.CacheStats) uint64 { return s.Misses }),
		cache.counter("evicted", "Registrations ended to make room.", func(s mr.CacheStats) uint64 { return s.Evicted }),
		cache.counter("failed", "Registrations that could not be ended.", func(s mr.CacheStats) uint64 { return s.Failed }),
	}

	client        = table[rpc.ClientStats]{"rpc_client_", []string{"name"}}
	clientMetrics = []metric[rpc.ClientStats]{
		client.counter("calls", "Calls.", func(s rpc.ClientStats) uint64 { return s.Calls }),
		client.counter("failed", "Of them, those that failed.", func(s rpc.ClientStats) uint64 { return s.Failed }),
		client.counter("cancelled", "And those whose context ended first.", func(s rpc.ClientStats) uint64 { return s.Cancelled }),
		client.counter("replays", "Calls done again on another session.", func(s rpc.ClientStats) uint64 { return s.Replays }),
		client.counter("late", "Answers to calls that had ended.", func(s rpc.ClientStats) uint64 { return s.Late }),
		client.counter("stalls", "Waits for a free place among MaxCalls.", func(s rpc.ClientStats) uint64 { return s.Stalls }),
		client.counter("sessions", "Connections made.", func(s rpc.ClientStats) uint64 { return s.Sessions }),
		client.counter("restarts", "Of them, those that found another process.", func(s rpc.ClientStats) uint64 { return s.Restarts }),
		client.counter("copied_bytes", "Bytes of arguments that the CPU put into messages.", func(s rpc.ClientStats) uint64 { return s.Copied }),
		client.counter("fenced_by_ack", "Cancelled calls whose memory the server gave back.", func(s rpc.ClientStats) uint64 { return s.FencedByAck }),
		client.counter("fenced_hard", "Cancelled calls from which the right to memory was taken away.", func(s rpc.ClientStats) uint64 { return s.FencedHard }),
	}

	server        = table[rpc.ServerStats]{"rpc_server_", []string{"name"}}
	serverMetrics = []metric[rpc.ServerStats]{
		server.counter("calls", "Calls.", func(s rpc.ServerStats) uint64 { return s.Calls }),
		server.counter("failed", "Of them, those whose handler returned an error.", func(s rpc.ServerStats) uint64 { return s.Failed }),
		server.counter("refused", "Calls that were not begun: a limit, or no such method.", func(s rpc.ServerStats) uint64 { return s.Refused }),
		server.counter("cancelled", "Calls that the caller cancelled.", func(s rpc.ServerStats) uint64 { return s.Cancelled }),
		server.counter("panics", "Handlers that panicked.", func(s rpc.ServerStats) uint64 { return s.Panics }),
		server.counter("sessions", "Sessions ever begun.", func(s rpc.ServerStats) uint64 { return s.Sessions }),
		server.gauge("sessions_open", "Sessions that are open.", func(s rpc.ServerStats) int { return s.Open }),
		server.counter("copied_bytes", "Bytes of answers that the CPU put into messages.", func(s rpc.ServerStats) uint64 { return s.Copied }),
	}
)
