package rpc

import (
	"context"
	"flag"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

var allocRounds = flag.Int("rpc.allocs", 500, "rounds of TestNoAllocs; many for a -memprofile")

// thrift is a server that allocates nothing, so that what a test counts is the
// client's: it answers every call at once, from an engine's goroutine, and writes
// into the memory that the call shows.
type thrift struct {
	t    *testing.T
	src  chan mr.Buf
	ops  [2]qp.Op
	bufs [1]mr.Buf
	out  [headerLen + 2]byte
	done func(qp.Result)
}

func (x *thrift) take(c *qp.Conn, m qp.Message) {
	p, err := m.Buf.Bytes()
	var msg message
	if err == nil {
		err = msg.decode(p)
	}
	if err != nil || msg.typ != msgRequest {
		_ = m.Buf.Release()
		return
	}
	h := header{typ: msgResponse, id: msg.id, epoch: msg.epoch, inline: 2}
	ops := x.ops[1:]
	if d := msg.first(); d.flags == dirToPeer {
		ops = x.ops[:]
		x.bufs[0] = <-x.src
		x.ops[0] = qp.Op{Kind: qp.Write, Bufs: x.bufs[:], Remote: d.Remote, Done: x.done}
		h.flags |= flagInvalidated
		h.order = d.Len
		x.ops[1] = qp.Op{Kind: qp.Send, Data: x.out[:], Invalidate: d.RKey}
	} else {
		x.ops[1] = qp.Op{Kind: qp.Send, Data: x.out[:]}
	}
	x.out[headerLen], x.out[headerLen+1] = 'o', 'k'
	h.put(x.out[:], len(x.out))
	_ = m.Buf.Release()
	if err := c.TryPost(ops...); err != nil {
		x.t.Error(err)
	}
}

func (m *message) first() (d desc) {
	if m.header.descs > 0 {
		d = m.desc(0)
	}
	return d
}

// In the steady state a call allocates nothing on the client, with memory or
// without.
func TestNoAllocs(t *testing.T) {
	if raceBuild {
		return // the detector allocates
	}
	// Loopback addresses of its own: an rdmatest.Network remembers packets.
	cd, err := qp.Open(qp.DeviceConfig{Name: "soft:127.0.7.1", Logger: quiet()})
	require.NoError(t, err)
	x := &thrift{t: t, src: make(chan mr.Buf, 16)}
	x.done = func(r qp.Result) { x.src <- r.Bufs[0] }
	sd, err := qp.Open(qp.DeviceConfig{Name: "soft:127.0.7.2", Logger: quiet()})
	require.NoError(t, err)
	for range cap(x.src) {
		block, err := sd.Pool().Get(t.Context(), 65536)
		require.NoError(t, err)
		x.src <- block
	}

	// The handshake by hand; then its queue pairs answer.
	l, err := sd.Listen(t.Context(), "127.0.7.2:0", strangeConfig())
	require.NoError(t, err)
	type end struct{ ctl, data *qp.Conn }
	ready := make(chan end)
	go func() {
		c, err := l.Accept(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		s := &stranger{t: t, c: c, self: hello{major: major, minor: minor, bootID: 9, slot: 4096, calls: 16}}
		m, err := s.recv()
		if err != nil {
			t.Error(err)
			return
		}
		var h hello
		_ = h.decode(m.body)
		s.answerWith(sd, h, qp.Config{Logger: quiet(), OnMessage: x.take})
		ready <- end{c, s.data[0]}
		for {
			m, err := c.Recv(context.Background())
			if err != nil {
				return
			}
			x.take(c, m)
		}
	}()
	c, err := Dial(t.Context(), l.Addr().String(), Config{Device: cd, Logger: quiet(), DeadAfter: 1 << 40})
	require.NoError(t, err)
	e := <-ready
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	body, long := make([]byte, 64), make([]byte, 2000)
	buf, err := cd.Pool().Get(ctx, 65536)
	require.NoError(t, err)
	for _, k := range []struct {
		name string
		f    func()
	}{
		{"eager", func() {
			r, err := c.Call(ctx, "echo", body)
			if err != nil {
				t.Fatal(err)
			}
			r.Release()
		}},
		{"long arguments", func() {
			r, err := c.Call(ctx, "echo", long)
			if err != nil {
				t.Fatal(err)
			}
			r.Release()
		}},
		{"bulk write", func() {
			r, err := c.Call(ctx, "put", body, WriteFrom(buf))
			if err != nil {
				t.Fatal(err)
			}
			buf = r.Buf(0)
			r.Release()
		}},
		{"bulk read", func() {
			r, err := c.Call(ctx, "get", body, ReadInto(buf))
			if err != nil {
				t.Fatal(err)
			}
			buf = r.Buf(0)
			r.Release()
		}},
	} {
		for range 1000 {
			k.f()
		}
		require.Zero(t, int(testing.AllocsPerRun(*allocRounds, k.f)), k.name)
	}
	require.NoError(t, buf.Release())
	require.NoError(t, c.Close())
	require.NoError(t, e.data.Close())
	require.NoError(t, e.ctl.Close())
	require.NoError(t, l.Close())
	for range cap(x.src) {
		require.NoError(t, (<-x.src).Release())
	}
	require.NoError(t, cd.Close())
	require.NoError(t, sd.Close())
}
