package rdmanet

import (
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
)

// inVirtual is a pair in virtual time: what takes seconds takes none.
func inVirtual(t *testing.T, f func(t *testing.T, n *rdmatest.Network, a, b *rdmatest.Device, client, server *Conn)) {
	rdmatest.Run(t, 1, func(t *testing.T, n *rdmatest.Network) {
		ds, dc := n.Device(t), n.Device(t)
		p := newPlace(t, openQP(t, qp.DeviceConfig{Context: ds.Context}), openQP(t, qp.DeviceConfig{Context: dc.Context}))
		c, s := p.pair(t, Config{})
		f(t, n, dc, ds, c, s)
	})
}

// waiting are a Read, and a Write that nobody reads, under way.
func waiting(c *Conn) (read, write chan error) {
	read, write = make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 10))
		read <- err
	}()
	go func() {
		for {
			if _, err := c.Write(make([]byte, 100_000)); err != nil {
				write <- err
				return
			}
		}
	}()
	return read, write
}

// failed checks that err is a net.Error, no timeout, and says why.
func failed(t *testing.T, err error, why ...error) {
	t.Helper()
	var ne net.Error
	require.ErrorAs(t, err, &ne)
	require.False(t, ne.Timeout(), "a lost connection is no timeout: who tries again at once would do so for ever")
	var oe *net.OpError
	require.ErrorAs(t, err, &oe)
	require.Equal(t, "rdma", oe.Net)
	for _, w := range why {
		require.ErrorIs(t, err, w)
	}
}

// A peer that ends without Close, as one that is killed does: its kernel or
// device disconnects, and nothing said that the stream was over.
func TestPeerKilled(t *testing.T) {
	places(t, func(t *testing.T, p *place) {
		a, b := p.pair(t, Config{})
		read, write := waiting(a)
		time.Sleep(20 * time.Millisecond)
		require.NoError(t, b.QP().Close())
		failed(t, <-read, syscall.ECONNRESET, qp.ErrPeerClosed)
		failed(t, <-write, syscall.ECONNRESET, qp.ErrPeerClosed)
		_, err := a.Write([]byte("x"))
		failed(t, err, syscall.ECONNRESET)
		failed(t, a.CloseWrite(), syscall.ECONNRESET)
		require.NoError(t, a.Close(), "that is old news")
	})
}

// A peer that has closed, having read all, is told from one that was killed.
func TestPeerClosed(t *testing.T) {
	places(t, func(t *testing.T, p *place) {
		a, b := p.pair(t, Config{})
		_, err := a.Write([]byte("hello"))
		require.NoError(t, err)
		_, err = io.ReadFull(b, make([]byte, 5))
		require.NoError(t, err)
		require.NoError(t, b.Close())
		_, err = a.Read(make([]byte, 10))
		require.Equal(t, io.EOF, err)
		for err = nil; err == nil; { // the word of it may take a moment
			_, err = a.Write([]byte("x"))
		}
		failed(t, err, syscall.EPIPE, qp.ErrPeerClosed)
		_, err = a.Read(make([]byte, 10))
		require.Equal(t, io.EOF, err, "and stays so")
	})
}

func TestPartition(t *testing.T) {
	inVirtual(t, func(t *testing.T, n *rdmatest.Network, da, db *rdmatest.Device, a, b *Conn) {
		read, write := waiting(a)
		idle := make(chan error, 1)
		go func() { // has nothing to send, so a probe finds out
			_, err := io.Copy(io.Discard, b)
			idle <- err
		}()
		time.Sleep(time.Millisecond)
		n.Partition(da, db)
		start := time.Now()
		failed(t, <-read, qp.ErrPeerDead, syscall.ETIMEDOUT)
		failed(t, <-write, qp.ErrPeerDead)
		failed(t, <-idle, qp.ErrPeerDead)
		require.Less(t, time.Since(start), 15*time.Second)
	})
}

// A partition that heals in time loses nothing.
func TestPartitionHeals(t *testing.T) {
	inVirtual(t, func(t *testing.T, n *rdmatest.Network, da, db *rdmatest.Device, a, b *Conn) {
		n.SetFaults(rdmatest.Faults{Bandwidth: 100 << 20})
		data := noise(5 << 20) // 50 ms
		go func() {
			if _, err := a.Write(data); err != nil {
				t.Error(err)
			}
			a.CloseWrite()
		}()
		start := time.Now()
		go func() {
			time.Sleep(10 * time.Millisecond)
			n.Partition(da, db)
			time.Sleep(100 * time.Millisecond)
			n.Heal(da, db)
		}()
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Greater(t, time.Since(start), 100*time.Millisecond)
		require.Equal(t, sha256.Sum256(data), sha256.Sum256(got))
	})
}

func TestDeviceRemoved(t *testing.T) {
	inVirtual(t, func(t *testing.T, n *rdmatest.Network, da, db *rdmatest.Device, a, b *Conn) {
		read, write := waiting(a)
		time.Sleep(time.Millisecond)
		n.Remove(da)
		failed(t, <-read, qp.ErrDeviceRemoved, syscall.ENODEV)
		failed(t, <-write, qp.ErrDeviceRemoved)
		_, err := io.ReadAll(b) // the other side hears nothing
		failed(t, err, qp.ErrPeerDead)
	})
}

// Over a network that loses, repeats, swaps and damages packets the stream is the
// same bytes.
func TestBadNetwork(t *testing.T) {
	inVirtual(t, func(t *testing.T, n *rdmatest.Network, _, _ *rdmatest.Device, a, b *Conn) {
		n.SetFaults(rdmatest.Faults{Drop: 0.01, Duplicate: 0.01, Reorder: 0.02, Corrupt: 0.005})
		data := noise(1 << 20)
		var wg sync.WaitGroup
		for _, c := range []*Conn{a, b} {
			wg.Go(func() {
				_, err := c.Write(data)
				if err = errors.Join(err, c.CloseWrite()); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				got, err := io.ReadAll(c)
				if err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
					t.Error("not what was sent:", len(got), err)
				}
			})
		}
		wg.Wait()
		n.SetFaults(rdmatest.Faults{})
	})
}
