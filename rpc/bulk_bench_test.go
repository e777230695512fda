package rpc

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// BenchmarkBulkMode is what Auto was decided by: a result by Push and by Pull, by its
// size, one call at a time. ZRDMA_TEST_DEVICE names a device that is not two software
// ones over loopback. cpu-us/op is of both ends, which a busy machine does not distort.
func BenchmarkBulkMode(b *testing.B) {
	names := [2]string{"soft:127.0.9.1", "soft:127.0.9.2"}
	if n := os.Getenv("ZRDMA_TEST_DEVICE"); n != "" {
		names = [2]string{n, n}
	}
	var ds [2]*qp.Device
	for i := range ds {
		d, err := qp.Open(qp.DeviceConfig{Name: names[i], Logger: quiet(), Pool: mr.PoolConfig{Memory: mr.Config{Huge: mr.HugeOff}}})
		require.NoError(b, err)
		defer d.Close()
		ds[i] = d
	}
	s, err := NewServer(ServerConfig{Config: Config{Device: ds[0], Logger: quiet()}})
	require.NoError(b, err)
	defer s.Close()
	s.Handle("get", func(ctx context.Context, c *ServerCall) error {
		p, err := c.Device().Pool().Get(ctx, c.OutLen())
		if err != nil {
			return err
		}
		return c.Push(ctx, p)
	})
	l, err := s.Listen(b.Context(), firstAddr(ds[0]).String()+":0")
	require.NoError(b, err)
	go func() { _ = s.Serve(l) }()
	for _, size := range []int{4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20} {
		for _, mode := range []BulkMode{Push, Pull} {
			b.Run(fmt.Sprintf("%dKiB/%v", size>>10, mode), func(b *testing.B) {
				c, err := Dial(b.Context(), l.Addr(), Config{Device: ds[1], Bulk: mode, Logger: quiet()})
				require.NoError(b, err)
				buf, err := ds[1].Pool().Get(b.Context(), size)
				require.NoError(b, err)
				b.SetBytes(int64(size))
				start := processorTime()
				for b.Loop() {
					r, err := c.Call(b.Context(), "get", nil, ReadInto(buf))
					require.NoError(b, err)
					buf = r.Buf(0)
					r.Release()
				}
				b.ReportMetric(float64((processorTime()-start).Microseconds())/float64(b.N), "cpu-us/op")
				require.NoError(b, buf.Release())
				require.NoError(b, c.Close())
			})
		}
	}
}

func processorTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
