package qp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/verbs"
)

func testCtx(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// testDevice names the device to test, rxe0 for instance; empty: software devices.
func testDevice() string { return os.Getenv("ZRDMA_TEST_DEVICE") }

// addrOf is the address of a device for its connection manager.
func addrOf(t testing.TB, d *Device) string {
	g, err := d.Context().SelectGID(d.Port(), netip.Addr{})
	require.NoError(t, err)
	return g.GID.Addr().String()
}

// openDevice opens a software device on an address of its own, or the device of
// the environment.
func openDevice(t testing.TB, addr string) *Device {
	if name := testDevice(); name != "" {
		d, err := Open(DeviceConfig{Name: name, Pool: mr.PoolConfig{Canaries: true}})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, d.Close()) })
		return d
	}
	c, err := verbs.OpenSoft(verbs.SoftConfig{Addrs: []netip.Addr{netip.MustParseAddr(addr)}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	d, err := Open(DeviceConfig{Context: c, Pool: mr.PoolConfig{Canaries: true}})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, d.Close())
	})
	return d
}

// pair connects two devices out of band.
func pair(t testing.TB, da, db *Device, ca, cb Config) (a, b *Conn) {
	a, b = pairOf(t, da, db, ca, cb)
	t.Cleanup(func() { require.NoError(t, a.Close()); require.NoError(t, b.Close()) })
	return a, b
}

// pairOf is pair that leaves closing to the caller.
func pairOf(t testing.TB, da, db *Device, ca, cb Config) (a, b *Conn) {
	pa, err := da.Prepare(netip.Addr{}, ca)
	require.NoError(t, err)
	pb, err := db.Prepare(netip.Addr{}, cb)
	require.NoError(t, err)
	la, lb := pa.Local(), pb.Local()
	a, err = pa.Connect(lb)
	require.NoError(t, err)
	b, err = pb.Connect(la)
	require.NoError(t, err)
	return a, b
}

func devices(t testing.TB) (*Device, *Device) {
	return openDevice(t, "127.0.9.1"), openDevice(t, "127.0.9.2")
}

func fillBuf(t testing.TB, d *Device, n int, seed byte) mr.Buf {
	b, err := d.Pool().Get(testCtx(t), n)
	require.NoError(t, err)
	p, err := b.Bytes()
	require.NoError(t, err)
	for i := range p {
		p[i] = seed + byte(i)
	}
	return b
}

func TestMessages(t *testing.T) {
	da, db := devices(t)
	a, b := pair(t, da, db, Config{}, Config{RecvDepth: 8})
	ctx := testCtx(t)
	const n = 500
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range n {
			if err := a.SendBytes(ctx, fmt.Appendf(nil, "message %d", i)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for i := range n {
		m, err := b.Recv(ctx)
		require.NoError(t, err)
		p, err := m.Buf.Bytes()
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("message %d", i), string(p))
		require.NoError(t, m.Buf.Release())
	}
	<-sent
	t.Log(a.Stats(), b.Stats())
}

func TestOneSided(t *testing.T) {
	da, db := devices(t)
	a, b := pair(t, da, db, Config{}, Config{})
	ctx := testCtx(t)
	g, err := mr.NewGranter(db.PD(), mr.GranterConfig{})
	require.NoError(t, err)
	defer g.Close()
	grant, err := g.Grant(ctx, b, fillBuf(t, db, 1<<20, 0), mr.DeviceWrites)
	require.NoError(t, err)
	src := fillBuf(t, da, 1<<20, 7)
	src, err = a.Write(ctx, src, grant.Remote())
	require.NoError(t, err)
	got, err := grant.Revoke(ctx)
	require.NoError(t, err)
	want, err := src.Bytes()
	require.NoError(t, err)
	have, err := got.Bytes()
	require.NoError(t, err)
	require.Equal(t, want, have)
	// The right is gone: another write ends the connection with an access error.
	src, err = a.Write(ctx, src, grant.Remote())
	require.Error(t, err)
	var ce *verbs.CompletionError
	require.ErrorAs(t, err, &ce)
	require.Equal(t, verbs.WCRemAccessErr, ce.Status)
	require.NoError(t, src.Release())
	require.NoError(t, got.Release())
}

func TestDialListen(t *testing.T) {
	da, db := devices(t)
	ctx := testCtx(t)
	l, err := db.Listen(ctx, net.JoinHostPort(addrOf(t, db), "0"), Config{})
	require.NoError(t, err)
	defer l.Close()
	var wg sync.WaitGroup
	wg.Add(1)
	var b *Conn
	go func() {
		defer wg.Done()
		var err error
		if b, err = l.Accept(ctx); err != nil {
			t.Error(err)
		}
	}()
	a, err := da.Dial(ctx, l.Addr().String(), Config{})
	require.NoError(t, err)
	wg.Wait()
	require.NotNil(t, b)
	require.NoError(t, a.SendBytes(ctx, []byte("hello")))
	m, err := b.Recv(ctx)
	require.NoError(t, err)
	p, _ := m.Buf.Bytes()
	require.Equal(t, "hello", string(p))
	require.NoError(t, m.Buf.Release())
	require.NoError(t, a.Close())
	_, err = b.Recv(ctx)
	require.ErrorIs(t, err, ErrPeerClosed)
	require.NoError(t, b.Close())
}

func TestExchange(t *testing.T) {
	da, db := devices(t)
	ctx := testCtx(t)
	x, y := net.Pipe()
	res := make(chan *Conn, 1)
	go func() {
		c, err := db.ExchangeUnsafe(ctx, y, Config{})
		if err != nil {
			t.Error(err)
		}
		res <- c
	}()
	a, err := da.ExchangeUnsafe(ctx, x, Config{})
	require.NoError(t, err)
	b := <-res
	require.NoError(t, a.SendBytes(ctx, []byte("hello")))
	m, err := b.Recv(ctx)
	require.NoError(t, err)
	require.NoError(t, m.Buf.Release())
	require.NoError(t, b.Close())
	select {
	case <-a.Done():
	case <-ctx.Done():
		t.Fatal("the other side did not notice")
	}
	require.ErrorIs(t, a.Err(), ErrPeerClosed)
	require.NoError(t, a.Close())
}

func TestDatagram(t *testing.T) {
	da, db := devices(t)
	ctx := testCtx(t)
	a, err := da.NewDatagram(DatagramConfig{})
	require.NoError(t, err)
	b, err := db.NewDatagram(DatagramConfig{RecvDepth: 4})
	require.NoError(t, err)
	defer b.Close()
	defer a.Close()
	for i := range 50 {
		require.NoError(t, a.Send(ctx, b.Addr(), fillBuf(t, da, 100, byte(i))))
		m, err := b.Recv(ctx)
		require.NoError(t, err)
		p, err := m.Buf.Bytes()
		require.NoError(t, err)
		require.Len(t, p, 100)
		require.Equal(t, byte(i), p[0])
		require.Equal(t, a.Addr(), m.From)
		require.NoError(t, b.Send(ctx, m.From, m.Buf))
		m, err = a.Recv(ctx)
		require.NoError(t, err)
		require.NoError(t, m.Buf.Release())
	}
	err = a.Send(ctx, b.Addr(), fillBuf(t, da, a.MTU()+1, 0))
	require.ErrorIs(t, err, syscall.EMSGSIZE)
}

// TestCreditsFlow: a receiver that never sends anything itself gives its credits
// back in time. The clock is the network's: a connection that is stuck until the
// next probe shows as seconds.
func TestCreditsFlow(t *testing.T) {
	for _, depth := range []int{1, 3, 17, 64} {
		t.Run(fmt.Sprint(depth), func(t *testing.T) {
			rdmatest.Run(t, 1, func(t *testing.T, net *rdmatest.Network) {
				da, db := netDevice(t, net, mr.PoolConfig{}), netDevice(t, net, mr.PoolConfig{})
				a, b := pairOf(t, da, db, Config{SendDepth: 16}, Config{RecvDepth: depth, OnMessage: func(_ *Conn, m Message) { _ = m.Buf.Release() }})
				start := time.Now()
				const n = 3000
				batch := make([]Op, min(a.MaxBatch(), 16))
				for i := range batch {
					batch[i] = Op{Kind: Send, Data: []byte("x")}
				}
				for range n / len(batch) {
					require.NoError(t, a.Post(t.Context(), batch...))
				}
				require.NoError(t, a.Flush(t.Context()))
				require.Less(t, time.Since(start), time.Second)
				require.NoError(t, a.Close())
				require.NoError(t, b.Close())
				require.NoError(t, da.Close())
				require.NoError(t, db.Close())
			})
		})
	}
}
