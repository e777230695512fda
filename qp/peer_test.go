package qp

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
)

// TestPeer is one end of the runs between two hosts, started by the tests of
// test/softroce/interop: ZRDMA_QP_PEER is "server" or the server's address, port
// and the seconds to write. The server grants memory, into which the client writes
// with eight writes under way. Each says on its output how it ended, and is
// clean when every buffer has come back and everything could be closed. With
// ZRDMA_QP_WORK=windows it is the work of TestWindowsUnderRetries.
func TestPeer(t *testing.T) {
	role := os.Getenv("ZRDMA_QP_PEER")
	if role == "" {
		return // not a test of its own
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	d, err := Open(DeviceConfig{Name: testDevice(), Pool: mr.PoolConfig{Canaries: true}})
	require.NoError(t, err)
	cfg := Config{DeadAfter: 3 * time.Second, Timeout: 16} // seven tries outlast a link that is down for a second
	windows := os.Getenv("ZRDMA_QP_WORK") == "windows"
	switch {
	case windows && role == "server":
		l := must[*Listener](t)(d.Listen(ctx, ":7471", hasty))
		fmt.Println("LISTENING")
		c := must[*Conn](t)(l.Accept(ctx))
		require.NoError(t, answerWindows(ctx, d, c))
		<-c.Done() // its answers are there
		require.NoError(t, c.Close())
		require.NoError(t, l.Close())
	case windows:
		c := must[*Conn](t)(d.Dial(ctx, role, hasty))
		require.NoError(t, askWindows(ctx, d, c))
		require.NoError(t, c.Close())
	case role == "server":
		peerServer(t, ctx, d, cfg)
	default:
		seconds := must[time.Duration](t)(time.ParseDuration(os.Getenv("ZRDMA_QP_TIME")))
		peerClient(t, ctx, d, role, cfg, seconds)
	}
	require.Zero(t, d.Pool().Stats().Damaged)
	require.NoError(t, d.Close(), "a buffer is missing, or an object is left")
	fmt.Println("CLEAN")
}

func peerServer(t *testing.T, ctx context.Context, d *Device, cfg Config) {
	l := must[*Listener](t)(d.Listen(ctx, ":7471", cfg))
	fmt.Println("LISTENING")
	c := must[*Conn](t)(l.Accept(ctx))
	g := must[*mr.Granter](t)(mr.NewGranter(d.PD(), mr.GranterConfig{}))
	buf := must[mr.Buf](t)(d.Pool().Get(ctx, 64<<10))
	grant := must[*mr.Grant](t)(g.Grant(ctx, c, buf, mr.DeviceWrites))
	b := must[[]byte](t)(grant.Remote().MarshalBinary())
	require.NoError(t, c.SendBytes(ctx, b))
	start := time.Now()
	for {
		m, err := c.Recv(ctx)
		if err != nil {
			fmt.Printf("ENDED after %v: %v\n", time.Since(start).Round(time.Millisecond), err)
			break
		}
		require.NoError(t, m.Buf.Release())
		start = time.Now()
	}
	buf = must[mr.Buf](t)(grant.Revoke(ctx))
	require.NoError(t, buf.Release())
	require.NoError(t, g.Close())
	require.NoError(t, c.Close())
	require.NoError(t, l.Close())
}

func peerClient(t *testing.T, ctx context.Context, d *Device, addr string, cfg Config, d8 time.Duration) {
	c := must[*Conn](t)(d.Dial(ctx, addr, cfg))
	m := must[Message](t)(c.Recv(ctx))
	var to mr.Remote
	require.NoError(t, to.UnmarshalBinary(must[[]byte](t)(m.Buf.Bytes())))
	require.NoError(t, m.Buf.Release())
	var writes atomic.Int64
	var last atomic.Int64 // of the last good write
	var wg sync.WaitGroup
	begin := time.Now()
	var once sync.Once
	for range 8 {
		wg.Go(func() {
			b, err := d.Pool().Get(ctx, int(to.Len))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() {
				if err := b.Release(); err != nil {
					t.Error(err)
				}
			}()
			for time.Since(begin) < d8 {
				if b, err = c.Write(ctx, b, to); err != nil {
					once.Do(func() {
						fmt.Printf("ENDED after %v: %v\n", (time.Since(begin) - time.Duration(last.Load())).Round(time.Millisecond), err)
					})
					return
				}
				last.Store(int64(time.Since(begin)))
				if n := writes.Add(1); n == 20 {
					fmt.Println("WRITING")
				} else if n%100 == 0 {
					_ = c.TryPost(Op{Kind: Send, Data: []byte("still here")})
				}
			}
		})
	}
	wg.Wait()
	fmt.Printf("WRITES %d\n", writes.Load())
	require.NoError(t, c.Close())
}
