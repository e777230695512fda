package bench

import (
	"context"
	"net"
	"os"
	"testing"
	"time"
)

// Both ends run in this process, on the device named by ZRDMA_TEST_DEVICE.
func BenchmarkVerbs(b *testing.B) {
	dev := os.Getenv("ZRDMA_TEST_DEVICE")
	if dev == "" {
		b.Skip("ZRDMA_TEST_DEVICE names no device")
	}
	for _, c := range []struct {
		name string
		cfg  Config
	}{
		{"SendLat/events", Config{Test: "send_lat", Size: 64, TxDepth: 1, Wait: "events"}},
		{"SendLat/naive", Config{Test: "send_lat", Size: 64, TxDepth: 1, Wait: "naive"}},
		{"Send64", Config{Test: "send_bw", Size: 64, TxDepth: 128, Wait: "spin"}},
		{"Send64/batch16", Config{Test: "send_bw", Size: 64, TxDepth: 128, Batch: 16, Wait: "spin"}},
		{"Write4K", Config{Test: "write_bw", Size: 4096, TxDepth: 128, Wait: "spin"}},
		{"Read4K", Config{Test: "read_bw", Size: 4096, TxDepth: 128, Wait: "spin"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			cfg := c.cfg
			cfg.Dev, cfg.Iters, cfg.RxDepth, cfg.Batch = dev, b.N, 512, max(cfg.Batch, 1)
			cfg.TxDepth = min(cfg.TxDepth, b.N)
			cfg.CQMod = min(100, cfg.TxDepth)
			if cfg.Test != "send_lat" {
				b.SetBytes(int64(cfg.Size))
			}
			b.ReportAllocs()
			if err := bothEnds(cfg); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func bothEnds(cfg Config) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			defer conn.Close()
			c := cfg
			c.Server = true
			_, err = Run(ctx, c, conn)
		}
		served <- err
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := Run(ctx, cfg, conn); err != nil {
		return err
	}
	return <-served
}
