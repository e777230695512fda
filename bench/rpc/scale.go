package main

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/roce"
	"github.com/zrdma/zrdma/internal/roce/link"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
	"github.com/zrdma/zrdma/verbs"
)

// scale has n clients call one server, all in this process and on a network in
// memory, and prints what they cost.
func scale(n, window int, length time.Duration) error {
	net := link.Memory(1, link.MemOptions{})
	open := func(addr string) (*qp.Device, error) {
		d := roce.New(roce.Config{Name: "soft:" + addr, Addrs: []netip.Addr{netip.MustParseAddr(addr)}, Net: net})
		c, err := bridge.Device(d).(*verbs.Device).Open()
		if err != nil {
			return nil, err
		}
		return qp.Open(qp.DeviceConfig{Context: c, Pool: mr.PoolConfig{Limit: 8 << 30}})
	}
	sd, err := open("10.0.0.1")
	if err != nil {
		return err
	}
	cd, err := open("10.0.0.2")
	if err != nil {
		return err
	}
	cfg := rpc.Config{MaxCalls: window, Window: window, DeadAfter: 10 * time.Second, DialTimeout: time.Minute}
	sc := rpc.ServerConfig{Config: cfg}
	sc.Device = sd
	s, err := rpc.NewServer(sc)
	if err != nil {
		return err
	}
	s.Handle("echo", func(_ context.Context, c *rpc.ServerCall) error { return c.Reply(c.Body) })
	l, err := s.Listen(context.Background(), "10.0.0.1:0")
	if err != nil {
		return err
	}
	go s.Serve(l)
	cfg.Device = cd

	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	used := func(d *qp.Device) (bytes int64) { // of registered memory: posted receives
		for _, c := range d.Pool().Stats().Classes {
			bytes += int64(c.Size) * int64(c.Slots-c.Free)
		}
		return bytes
	}
	fmt.Printf("%s %d clients, windows of %d messages\n", machine(), n, window)
	h, cu, su, cpu, begin := heap(), used(cd), used(sd), usage().CPU, time.Now()
	clients := make([]*rpc.Client, n)
	err = each(n, 16, func(i int) (err error) {
		clients[i], err = rpc.Dial(context.Background(), l.Addr(), cfg)
		return err
	})
	if err != nil {
		return err
	}
	took := time.Since(begin)
	fmt.Printf("connect: %.0f a second, %.2f ms of processor each, both ends\n", float64(n)/took.Seconds(), (usage().CPU-cpu).Seconds()*1e3/float64(n))
	fmt.Printf("memory of a connection: %.1f KiB of Go heap and stacks, both ends; %.1f KiB registered on the client, %.1f KiB on the server; %d goroutines in all\n",
		float64(heap()-h)/1024/float64(n), float64(used(cd)-cu)/1024/float64(n), float64(used(sd)-su)/1024/float64(n), runtime.NumGoroutine())

	cpu = usage().CPU
	time.Sleep(length)
	fmt.Printf("idle for %v: %.4f processors, both ends, DeadAfter %v\n", length, (usage().CPU-cpu).Seconds()/length.Seconds(), cfg.DeadAfter)

	// Everybody calls all the time.
	calls := make([]int, n)
	cpu, begin = usage().CPU, time.Now()
	end := begin.Add(length)
	err = each(n, n, func(i int) error {
		z := zrdmaCaller{c: clients[i]}
		for time.Now().Before(end) {
			if err := z.echo(byte(calls[i])); err != nil {
				return err
			}
			calls[i]++
		}
		return nil
	})
	if err != nil {
		return err
	}
	took = time.Since(begin)
	sum := 0
	for _, c := range calls {
		sum += c
	}
	slices.Sort(calls)
	fmt.Printf("all calling for %v: %.0f calls a second, %.2f us of processor each; calls a client: min %d, median %d, max %d, min/max %.2f\n", length,
		float64(sum)/took.Seconds(), (usage().CPU-cpu).Seconds()*1e6/float64(sum), calls[0], calls[n/2], calls[n-1], float64(calls[0])/float64(max(calls[n-1], 1)))

	begin = time.Now()
	if err := each(n, 64, func(i int) error { return clients[i].Close() }); err != nil {
		return err
	}
	fmt.Printf("close: %.0f a second\nload at the end: %s\n", float64(n)/time.Since(begin).Seconds(), load())
	return s.Close()
}

// each calls f for 0 to n-1, at most at a time; the first error counts.
func each(n, at int, f func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	turn := make(chan struct{}, at)
	for i := range n {
		wg.Go(func() {
			turn <- struct{}{}
			errs[i] = f(i)
			<-turn
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
