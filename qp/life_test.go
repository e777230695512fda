package qp

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/verbs"
)

// inVirtual runs f with two devices in virtual time, where a second waited for in
// vain is seen.
func inVirtual(t *testing.T, f func(t *testing.T, net *rdmatest.Network, da, db *Device)) {
	rdmatest.Run(t, 1, func(t *testing.T, net *rdmatest.Network) {
		da, db := netDevice(t, net, mr.PoolConfig{}), netDevice(t, net, mr.PoolConfig{})
		f(t, net, da, db)
		require.NoError(t, da.Close())
		require.NoError(t, db.Close())
	})
}

// A Dial that is refused does not wait for flushes of a queue pair that is gone.
func TestDialRefused(t *testing.T) {
	inVirtual(t, func(t *testing.T, _ *rdmatest.Network, da, db *Device) {
		l, err := db.Listen(t.Context(), addrOf(t, db)+":0", Config{})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, err := l.Accept(ctx)
			require.ErrorIs(t, err, context.Canceled)
		}()
		start := time.Now()
		_, err = da.Dial(t.Context(), l.Addr().String(), Config{Raw: true})
		require.Error(t, err)
		require.Less(t, time.Since(start), time.Second)
		cancel()
		<-done
		require.NoError(t, l.Close())
		require.Empty(t, da.Conns())
		require.Empty(t, db.Conns())
	})
}

// A refusal flushes the queue pair, of which the engine learns, and then destroys
// it, with what the engine has not read: nothing waits for that.
func TestQueuePairLostWhileDraining(t *testing.T) {
	inVirtual(t, func(t *testing.T, _ *rdmatest.Network, da, _ *Device) {
		c, err := da.newConn(Config{Raw: true, RecvDepth: 3 * pollBatch})
		require.NoError(t, err)
		p, err := da.pd.CreateQP(c.queues())
		require.NoError(t, err)
		require.NoError(t, p.Modify(verbs.QPAttr{State: verbs.QPSInit, PortNum: da.port},
			verbs.QPAttrState|verbs.QPAttrPKeyIndex|verbs.QPAttrPort|verbs.QPAttrAccessFlags))
		require.NoError(t, c.attach(p))
		c.eng.turn.Lock() // the engine reads one batch, and waits with it
		c.end(errors.New("refused"))
		synctest.Wait()
		require.NoError(t, p.Close())
		close(c.lost)
		c.eng.turn.Unlock()
		start := time.Now()
		c.unmake()
		require.Less(t, time.Since(start), time.Second)
	})
}

// Work without a completion of its own at the end of the queue does not hold up Close.
func TestCloseUnsignalled(t *testing.T) {
	inVirtual(t, func(t *testing.T, _ *rdmatest.Network, da, db *Device) {
		a, b := pairOf(t, da, db, Config{}, Config{})
		ended := 0
		op := Op{Kind: Send, Data: []byte("x"), Done: func(Result) { ended++ }}
		require.NoError(t, a.credits.take(t.Context(), 1))
		require.NoError(t, a.slots.take(t.Context(), 1))
		a.send.Lock() // as after a batch of which the device refused the last
		require.NoError(t, a.prepare(&op, nil, false))
		_, err := a.submit(1)
		a.send.Unlock()
		require.NoError(t, err)
		time.Sleep(time.Millisecond) // it is done, and nothing says so
		synctest.Wait()
		require.Zero(t, ended)
		start := time.Now()
		require.NoError(t, a.Close())
		require.Less(t, time.Since(start), time.Second)
		require.Equal(t, 1, ended)
		require.NoError(t, b.Close())
	})
}

// A number that the device gave to another queue pair meanwhile stays that one's.
func TestTableRemove(t *testing.T) {
	var tab table
	a, b := &Conn{}, &Conn{}
	tab.set(7, a)
	tab.set(7, b)
	tab.remove(7, a)
	require.Equal(t, handler(b), tab.get(7))
	require.Equal(t, 1, tab.len())
	tab.remove(7, b)
	require.Nil(t, tab.get(7))
	require.Zero(t, tab.len())
}

// A device whose Close has failed says so to those who want to connect.
func TestDeviceHalfClosed(t *testing.T) {
	inVirtual(t, func(t *testing.T, _ *rdmatest.Network, da, _ *Device) {
		b := fillBuf(t, da, 100, 0)
		require.ErrorIs(t, da.Close(), verbs.ErrInUse)
		_, err := da.Prepare(netip.Addr{}, Config{})
		require.ErrorIs(t, err, verbs.ErrClosed)
		_, err = da.NewDatagram(DatagramConfig{})
		require.ErrorIs(t, err, verbs.ErrClosed)
		_, err = da.NewSharedReceive(SharedReceiveConfig{})
		require.ErrorIs(t, err, verbs.ErrClosed)
		require.NoError(t, b.Release())
	})
}

// Messages that nobody received do not keep memory after Close.
func TestCloseDropsMessages(t *testing.T) {
	inVirtual(t, func(t *testing.T, _ *rdmatest.Network, da, db *Device) {
		a, b := pairOf(t, da, db, Config{}, Config{})
		for range 5 {
			require.NoError(t, a.SendBytes(t.Context(), []byte("hello")))
		}
		synctest.Wait()
		require.Equal(t, 5, b.Stats().Undelivered)
		require.NoError(t, b.Close())
		_, err := b.Recv(t.Context())
		require.ErrorIs(t, err, verbs.ErrClosed)
		require.NoError(t, a.Close())
	})
}

// Close from many goroutines is one.
func TestCloseTogether(t *testing.T) {
	inVirtual(t, func(t *testing.T, _ *rdmatest.Network, da, db *Device) {
		ends := 0
		a, b := pairOf(t, da, db, Config{OnEnd: func(c *Conn, err error) {
			ends++
			require.ErrorIs(t, err, verbs.ErrClosed)
			require.NoError(t, c.Close())
		}}, Config{})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { require.NoError(t, a.Close()) })
		}
		wg.Wait()
		synctest.Wait()
		require.Equal(t, 1, ends)
		require.ErrorIs(t, a.SendBytes(t.Context(), []byte("x")), verbs.ErrClosed)
		require.NoError(t, b.Close())
	})
}

// Kill proves that all is flushed, also of a connection that was closed already.
func TestKill(t *testing.T) {
	inVirtual(t, func(t *testing.T, net *rdmatest.Network, da, db *Device) {
		a, b := pairOf(t, da, db, Config{}, Config{})
		net.SetFaults(rdmatest.Faults{Drop: 1})
		src := fillBuf(t, da, 4096, 1)
		ended := make(chan error, 1)
		require.NoError(t, a.Post(t.Context(), Op{Kind: Send, Bufs: []mr.Buf{src}, Done: func(r Result) {
			release(r.Bufs)
			ended <- r.Err
		}}))
		razed, err := a.Kill(t.Context())
		require.NoError(t, err)
		require.False(t, razed)
		require.ErrorIs(t, <-ended, errKilled)
		require.NoError(t, a.Close())
		razed, err = a.Kill(t.Context())
		require.NoError(t, err)
		require.True(t, razed)
		require.NoError(t, b.Close())
	})
}

func TestPortDown(t *testing.T) {
	inVirtual(t, func(t *testing.T, net *rdmatest.Network, da, db *Device) {
		a, b := pairOf(t, da, db, Config{DeadAfter: time.Second}, Config{})
		da.event(verbs.AsyncEvent{Type: verbs.EventPortErr, Port: da.Port()})
		net.SetFaults(rdmatest.Faults{Drop: 1})
		err := a.SendBytes(t.Context(), []byte("x"))
		require.Error(t, err)
		<-a.Done()
		require.ErrorIs(t, a.Err(), ErrPortDown)
		require.ErrorIs(t, a.Err(), ErrPeerDead)
		da.event(verbs.AsyncEvent{Type: verbs.EventPortActive, Port: da.Port()})
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
		// With the port up it is the peer that is dead.
		a, b = pairOf(t, da, db, Config{DeadAfter: time.Second}, Config{})
		<-a.Done() // idle: the probe finds it
		require.ErrorIs(t, a.Err(), ErrPeerDead)
		require.NotErrorIs(t, a.Err(), ErrPortDown)
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	})
}

func TestDeviceRemoved(t *testing.T) {
	inVirtual(t, func(t *testing.T, net *rdmatest.Network, da, db *Device) {
		a, b := pairOf(t, da, db, Config{}, Config{})
		da.event(verbs.AsyncEvent{Type: verbs.EventDeviceFatal})
		<-a.Done()
		require.ErrorIs(t, a.Err(), ErrDeviceRemoved)
		require.ErrorIs(t, a.SendBytes(t.Context(), []byte("x")), ErrDeviceRemoved)
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	})
}

// Receives that a queue pair with a shared queue takes are known to be over.
func TestSharedReceiveNotices(t *testing.T) {
	inVirtual(t, func(t *testing.T, _ *rdmatest.Network, da, db *Device) {
		s, err := db.NewSharedReceive(SharedReceiveConfig{Depth: 256})
		require.NoError(t, err)
		before := db.engines[0].Stats().Reserved
		a, b := pairOf(t, da, db, Config{}, Config{Shared: s, RecvDepth: 16, DeadAfter: -1})
		require.GreaterOrEqual(t, db.engines[0].Stats().Reserved-before, 256, "a peer that ignores its credits overruns the queue")
		_, err = a.Do(t.Context(), Op{Kind: Write, Data: []byte("12345678"), Remote: Remote{Addr: 8, Len: 8, RKey: 12345}})
		require.Error(t, err)
		start := time.Now()
		<-b.Done() // no receive of its own is flushed to say so
		require.Less(t, time.Since(start), time.Second)
		require.NoError(t, b.Close())
		require.Less(t, time.Since(start), time.Second)
		require.NoError(t, a.Close())
		require.NoError(t, s.Close())
		require.Equal(t, before, db.engines[0].Stats().Reserved)
		_, err = db.Prepare(netip.Addr{}, Config{Shared: s})
		require.ErrorIs(t, err, verbs.ErrClosed)

		// rxe sends this event and no other.
		s, err = db.NewSharedReceive(SharedReceiveConfig{Depth: 256})
		require.NoError(t, err)
		a, b = pairOf(t, da, db, Config{}, Config{Shared: s, RecvDepth: 16, DeadAfter: -1})
		db.event(verbs.AsyncEvent{Type: verbs.EventQPLastWQEReached, QP: b.qp})
		require.ErrorIs(t, b.Err(), errFlushed)
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
		require.NoError(t, s.Close())
	})
}

// Receives that control messages took are replaced before data could lack one.
func TestControlReceives(t *testing.T) {
	inVirtual(t, func(t *testing.T, _ *rdmatest.Network, da, db *Device) {
		drop := func(_ *Conn, m Message) { _ = m.Buf.Release() }
		a, b := pairOf(t, da, db, Config{}, Config{RecvDepth: 16, OnMessage: drop})
		for range 40 { // each run of four brings a credit message
			for range 4 {
				require.NoError(t, a.SendBytes(t.Context(), []byte("x")))
			}
			synctest.Wait()
			require.GreaterOrEqual(t, a.Stats().ReceivesPosted, a.cfg.RecvDepth+recvReserve-controlDebts)
		}
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	})
}

// An engine with nothing to do does nothing, and says what it did.
func TestEngineSleeps(t *testing.T) {
	inVirtual(t, func(t *testing.T, _ *rdmatest.Network, da, db *Device) {
		var kinds []Kind
		var bytes int
		a, b := pairOf(t, da, db, Config{DeadAfter: -1, OnComplete: func(_ *Conn, k Kind, n int, err error) {
			require.NoError(t, err)
			kinds = append(kinds, k)
			bytes += n
		}}, Config{DeadAfter: -1})
		require.NoError(t, a.SendBytes(t.Context(), []byte("hello")))
		require.NoError(t, a.SendBytes(t.Context(), make([]byte, 1000)))
		synctest.Wait()
		require.Equal(t, []Kind{Send, Send}, kinds)
		require.Equal(t, 1005, bytes)
		time.Sleep(time.Second) // the last nap before the sleep
		synctest.Wait()
		before := a.eng.Stats()
		require.NotZero(t, before.Wait.Sleeps)
		require.NotZero(t, before.Wait.Arms)
		require.GreaterOrEqual(t, before.Wait.Polls, before.Batches)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, before, a.eng.Stats())
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	})
}

// A datagram endpoint whose queue pair fails says so instead of waiting for ever.
func TestDatagramFails(t *testing.T) {
	inVirtual(t, func(t *testing.T, _ *rdmatest.Network, da, _ *Device) {
		u, err := da.NewDatagram(DatagramConfig{})
		require.NoError(t, err)
		require.NoError(t, u.qp.Modify(verbs.QPAttr{State: verbs.QPSErr}, verbs.QPAttrState))
		_, err = u.Recv(t.Context())
		var ce *verbs.CompletionError
		require.ErrorAs(t, err, &ce)
		require.ErrorAs(t, u.Send(t.Context(), u.Addr(), fillBuf(t, da, 10, 0)), &ce)
		require.NoError(t, u.Close())
	})
}

// A raw connection leaves immediates and receives to its users.
func TestRaw(t *testing.T) {
	inVirtual(t, func(t *testing.T, _ *rdmatest.Network, da, db *Device) {
		a, b := pairOf(t, da, db, Config{Raw: true}, Config{Raw: true})
		_, err := a.Do(t.Context(), Op{Kind: Send, Data: []byte("hi"), Imm: 0x80000001, HasImm: true})
		require.NoError(t, err)
		m, err := b.Recv(t.Context())
		require.NoError(t, err)
		require.True(t, m.HasImm)
		require.Equal(t, uint32(0x80000001), m.Imm)
		require.NoError(t, m.Buf.Release())
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
		pa, err := da.Prepare(netip.Addr{}, Config{Raw: true})
		require.NoError(t, err)
		pb, err := db.Prepare(netip.Addr{}, Config{})
		require.NoError(t, err)
		_, err = pa.Connect(pb.Local())
		require.ErrorContains(t, err, "Config.Raw")
		require.NoError(t, pb.Close())
		_, err = pb.Connect(Endpoint{})
		require.True(t, errors.Is(err, verbs.ErrClosed))
	})
}

// A connection may be closed while memory is granted on it: the window goes before
// the queue pair, which rxe could not destroy otherwise, and Revoke proves what it
// has to. Also over shared receives.
func TestGrantOutlives(t *testing.T) {
	da, db := devices(t)
	ctx := testCtx(t)
	s, err := db.NewSharedReceive(SharedReceiveConfig{Depth: 64})
	require.NoError(t, err)
	for _, cfg := range []Config{{}, {Shared: s, RecvDepth: 16}} {
		a, b := pairOf(t, da, db, Config{}, cfg)
		g, err := mr.NewGranter(db.PD(), mr.GranterConfig{})
		require.NoError(t, err)
		grant, err := g.Grant(ctx, b, fillBuf(t, db, 4096, 0), mr.DeviceWrites)
		require.NoError(t, err)
		src, err := a.Write(ctx, fillBuf(t, da, 4096, 7), grant.Remote())
		require.NoError(t, err)
		require.NoError(t, b.Close())
		require.Empty(t, b.windows)
		buf, err := grant.Revoke(ctx)
		require.NoError(t, err)
		require.NoError(t, buf.Release())
		require.NoError(t, src.Release())
		require.NoError(t, a.Close())
		require.NoError(t, g.Close())
	}
	require.NoError(t, s.Close())
}

// A window that is a small part of a shared queue gets its credits back.
func TestSharedReceiveSmallWindow(t *testing.T) {
	inVirtual(t, func(t *testing.T, _ *rdmatest.Network, da, db *Device) {
		s, err := db.NewSharedReceive(SharedReceiveConfig{Depth: 1000})
		require.NoError(t, err)
		for _, window := range []int{1, 2, 3, 7, 8, 13} {
			a, b := pairOf(t, da, db, Config{}, Config{Shared: s, RecvDepth: window, OnMessage: func(_ *Conn, m Message) { _ = m.Buf.Release() }})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			for i := range 100 {
				require.NoError(t, a.SendBytes(ctx, []byte("x")), "message %d of a window of %d", i, window)
			}
			cancel()
			require.NoError(t, a.Close())
			require.NoError(t, b.Close())
		}
		require.NoError(t, s.Close())
	})
}
