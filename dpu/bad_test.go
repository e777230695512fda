package dpu_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/dpu/internal/wire"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/rpc"
)

// What is wrong with one descriptor refuses that one operation, says why, and touches
// nobody's memory.
func TestBadDescriptorsAreRefused(t *testing.T) {
	rdmatest.Run(t, 1, func(t *testing.T, net *rdmatest.Network) {
		w := newRig(t, net)
		w.acfg.MaxBlock = 1 << 20
		w.acfg.Tenants = map[string]dpu.Tenant{"": {MaxBytes: 500_000, Backends: []uint32{0}}}
		w.up()
		require.NoError(t, w.put(t.Context(), "k", 5000, 1))
		h, err := w.rawHost(nil)
		require.NoError(t, err)
		b := w.buf(6000, 9)
		p := w.bytes(b)
		g := h.grant(b, mr.DeviceWrites)
		r := g.Remote()
		base := wire.Descriptor{Op: wire.OpGet, Epoch: 5, Addr: r.Addr, Len: r.Len, RKey: uint32(r.RKey), Key: "k"}
		change := func(f func(*wire.Descriptor)) []byte {
			d := base
			f(&d)
			return d.Append(nil)
		}
		raw := func(at int, v byte) []byte {
			d := base.Append(nil)
			d[at] = v
			return d
		}
		id := uint64(0)
		for _, x := range []struct {
			name string
			d    []byte
			code rpc.Code
			text string
		}{
			{"version", raw(2, 3), rpc.Unimplemented, "version 3, this agent speaks 1"},
			{"operation", raw(3, 99), rpc.InvalidArgument, "operation 99"},
			{"epoch before", change(func(d *wire.Descriptor) { d.Epoch = 4 }), rpc.FailedPrecondition, "epoch 4; this session has 5"},
			{"epoch after", change(func(d *wire.Descriptor) { d.Epoch = 6 }), rpc.FailedPrecondition, "epoch 6"},
			{"overflow", change(func(d *wire.Descriptor) { d.Addr = math.MaxUint64 - 10 }), rpc.InvalidArgument, "over the end of the address space"},
			{"longer than a block", change(func(d *wire.Descriptor) { d.Len = math.MaxUint32 }), rpc.InvalidArgument, "up to 1048576"},
			{"backend not there", change(func(d *wire.Descriptor) { d.Backend = 7 }), rpc.PermissionDenied, "may not use backend 7"},
			{"quota of bytes", change(func(d *wire.Descriptor) { d.Len = 500_001 }), rpc.ResourceExhausted, "over its quota of 500000"},
			{"flags", change(func(d *wire.Descriptor) { d.Flags = 0x4000 }), rpc.InvalidArgument, "flags"},
			{"put of nothing", change(func(d *wire.Descriptor) { d.Op, d.Len = wire.OpPut, 0 }), rpc.InvalidArgument, "0 bytes"},
		} {
			id++
			x.d[8] = byte(id)
			h.send(x.d)
			s := <-h.statuses
			require.Equal(t, id, s.ID, x.name)
			require.Equal(t, x.code, rpc.Code(s.Code), "%s: %s", x.name, s.Text)
			require.Contains(t, s.Text, x.text, x.name)
			require.Equal(t, wire.NotBegun, s.Flags, x.name)
		}
		// The session is as good as before.
		id++
		base.ID = id
		h.send(base.Append(nil))
		s := <-h.statuses
		require.Zero(t, s.Code, s.Text)
		require.EqualValues(t, 5000, s.Size)
		b = h.revoke(g)
		same(t, content(5000, 1), p[:5000])
		same(t, content(6000, 9)[5000:], p[5000:], "nothing behind the block was touched")
		require.NoError(t, b.Release())
		st := w.agent.Stats()
		require.EqualValues(t, 10, st.Refused)
		require.Zero(t, st.OpsNow)
		require.Zero(t, st.BytesNow)
		h.close()
		w.down()
	})
}

// A key of another host's window, or of the wrong direction, opens nothing: the
// operation costs its sender the session, and others nothing.
func TestForeignKeys(t *testing.T) {
	for _, op := range []wire.Op{wire.OpGet, wire.OpPut} {
		for _, foreign := range []bool{true, false} {
			t.Run(op.String()+map[bool]string{true: " foreign", false: " direction"}[foreign], func(t *testing.T) {
				rdmatest.Run(t, 2, func(t *testing.T, net *rdmatest.Network) {
					w := newRig(t, net)
					w.up()
					require.NoError(t, w.put(t.Context(), "k", 5000, 1))
					mallory, err := w.rawHost(nil)
					require.NoError(t, err)
					owner := mallory
					if foreign {
						owner, err = w.rawHost(nil)
						require.NoError(t, err)
					}
					dir := map[bool]mr.Direction{true: mr.DeviceWrites, false: mr.DeviceReads}[(op == wire.OpGet) == foreign]
					b := w.buf(5000, 9)
					p := w.bytes(b)
					g := owner.grant(b, dir)
					r := g.Remote()
					d := wire.Descriptor{Op: op, Epoch: 5, ID: 1, Addr: r.Addr, Len: r.Len, RKey: uint32(r.RKey), Key: "stolen", Seq: 1}
					if op == wire.OpGet {
						d.Key = "k"
					}
					mallory.send(d.Append(nil))
					<-mallory.ended
					select {
					case s := <-mallory.statuses:
						require.NotZero(t, s.Code, "it cannot have worked")
					default:
					}
					require.NoError(t, owner.revoke(g).Release())
					same(t, content(5000, 9), p)
					_, err = w.c.Stat(t.Context(), "stolen")
					require.Equal(t, rpc.NotFound, rpc.CodeOf(err))
					if foreign { // the owner's session goes on
						b := w.buf(5000, 9)
						g := owner.grant(b, mr.DeviceWrites)
						r := g.Remote()
						owner.send((&wire.Descriptor{Op: wire.OpGet, Epoch: 5, ID: 1, Addr: r.Addr, Len: r.Len, RKey: uint32(r.RKey), Key: "k"}).Append(nil))
						require.Zero(t, (<-owner.statuses).Code)
						b = owner.revoke(g)
						same(t, content(5000, 1), w.bytes(b))
						require.NoError(t, b.Release())
						owner.close()
					}
					mallory.close()
					w.down()
				})
			})
		}
	}
}

// What is wrong with a message, or a handshake, ends the session, says why, and leaves
// the agent to others.
func TestBadSessions(t *testing.T) {
	get := func(id uint64) []byte {
		return (&wire.Descriptor{Op: wire.OpStat, Epoch: 5, ID: id, Key: "k"}).Append(nil)
	}
	for name, x := range map[string]struct {
		hello func(*rawHello)
		after func(h *rawHost)
		want  string
	}{
		"unknown tenant": {hello: func(h *rawHello) { h.Tenant = "nobody" }, want: `no tenant "nobody"`},
		"no secret":      {hello: func(h *rawHello) { h.secret = "" }, want: "does not know the secret"},
		"wrong secret":   {hello: func(h *rawHello) { h.secret = "guess" }, want: "does not know the secret"},
		"version":        {hello: func(h *rawHello) { h.version = 2 }, want: "the peer sends 2, this side speaks 1"},
		"epoch 0":        {hello: func(h *rawHello) { h.epoch = 0 }, want: "epoch 0"},
		"ring":           {hello: func(h *rawHello) { h.ringLen = 256 }, want: "a status ring of 256 bytes"},
		"no operations":  {hello: func(h *rawHello) { h.Slots = 0 }, want: "malformed"},
		"too early": {hello: func(h *rawHello) {
			h.early = wire.Seal(append(wire.Header{Type: wire.Descriptors, Epoch: 5, Count: 1}.Append(nil), get(1)...))
		}, want: "ended"},
		"garbage": {after: func(h *rawHost) { _ = h.data.SendBytes(h.w.t.Context(), []byte("GET / HTTP/1.1\r\n\r\n")) }, want: "no message"},
		"checksum": {after: func(h *rawHost) {
			m := wire.Seal(append(wire.Header{Type: wire.Descriptors, Count: 1}.Append(nil), get(1)...))
			m[len(m)-1] ^= 1
			_ = h.data.SendBytes(h.w.t.Context(), m)
		}, want: "checksum"},
		"too few descriptors": {after: func(h *rawHost) {
			_ = h.data.SendBytes(h.w.t.Context(), wire.Seal(append(wire.Header{Type: wire.Descriptors, Count: 5}.Append(nil), get(1)...)))
		}, want: "malformed"},
		"too many": {after: func(h *rawHost) {
			_ = h.data.SendBytes(h.w.t.Context(), wire.Seal(append(wire.Header{Type: wire.Descriptors}.Append(nil), get(1)...)))
		}, want: "behind the last descriptor"},
		"type": {after: func(h *rawHost) {
			_ = h.data.SendBytes(h.w.t.Context(), wire.Seal(wire.Header{Type: wire.Ready}.Append(nil)))
		}, want: "message 4"},
		"control type": {after: func(h *rawHost) {
			_ = h.ctl.SendBytes(h.w.t.Context(), wire.Seal(wire.Header{Type: wire.Hello}.Append(nil)))
		}, want: "message 1"},
		"cancel": {after: func(h *rawHost) {
			_ = h.data.SendBytes(h.w.t.Context(), wire.Seal(wire.Header{Type: wire.Cancel}.Append(nil)))
		}, want: "a cancel of 0"},
		"same id": {after: func(h *rawHost) { h.send(get(1), get(1)) }, want: "ids must differ"},
		"over the ring": {after: func(h *rawHost) {
			var ds [][]byte
			for i := range 9 {
				ds = append(ds, get(uint64(i+1)))
			}
			h.send(ds...)
		}, want: "the ring has 8"},
		"silence": {hello: func(h *rawHello) { h.Lease = 500_000 }, after: func(h *rawHost) {}, want: "silent"},
	} {
		t.Run(name, func(t *testing.T) {
			rdmatest.Run(t, 3, func(t *testing.T, net *rdmatest.Network) {
				w := newRig(t, net)
				w.acfg.Tenants = map[string]dpu.Tenant{"": {Secret: []byte("s3cret")}}
				w.ccfg.Secret = []byte("s3cret")
				w.up()
				// The agent is busy, so that nothing is answered at once.
				h, err := w.rawHost(func(h *rawHello) {
					h.secret = "s3cret"
					if x.hello != nil {
						x.hello(h)
					}
				})
				if x.after == nil {
					require.ErrorContains(t, err, x.want)
				} else {
					require.NoError(t, err)
					x.after(h)
					require.Contains(t, h.bye(), x.want)
				}
				time.Sleep(time.Second)
				require.Equal(t, 1, w.agent.Stats().Sessions, "the other host is there")
				require.NoError(t, w.put(dpu.WithPath(t.Context(), dpu.Staged), "k", 100, 1))
				h.close()
				w.down()
			})
		})
	}
}

// A tenant over its quota of operations is refused; its own client goes Direct, unless
// it was told not to.
func TestOverQuota(t *testing.T) {
	rdmatest.Run(t, 4, func(t *testing.T, net *rdmatest.Network) {
		w := newRig(t, net)
		w.acfg.Tenants = map[string]dpu.Tenant{"a": {MaxBytes: 100_000}, "b": {MaxOps: 1}}
		w.ccfg.Tenant = "a"
		w.up()
		require.NoError(t, w.put(t.Context(), "k", 100_001, 1), "the client knows the quota: Direct")
		require.EqualValues(t, 1, w.c.Stats().Direct)
		require.Zero(t, w.c.Stats().FellBack)
		_, err := w.get(dpu.WithPath(t.Context(), dpu.Staged), "k", 100_001)
		require.ErrorIs(t, err, rpc.ErrBusy)
		require.ErrorContains(t, err, `tenant "a"`)
		// Two at a time are too much, one is not.
		hung, resume := w.stall(0)
		done := make(chan error, 1)
		go func() { done <- w.put(dpu.WithPath(t.Context(), dpu.Staged), "x", 60_000, 1) }()
		<-hung
		go func() { time.Sleep(50 * time.Millisecond); resume() }()
		require.NoError(t, w.put(t.Context(), "y", 60_000, 2), "refused by the agent, and done directly")
		require.NoError(t, <-done)
		st := w.c.Stats()
		require.EqualValues(t, 1, st.FellBack)
		require.EqualValues(t, 1, st.Refused)
		require.Zero(t, st.Lost)
		w.down()
	})
}

func TestConfigs(t *testing.T) {
	rdmatest.Run(t, 5, func(t *testing.T, net *rdmatest.Network) {
		w := newRig(t, net)
		w.up()
		for _, f := range []func(*dpu.ClientConfig){
			func(c *dpu.ClientConfig) { c.Device = nil },
			func(c *dpu.ClientConfig) { c.Direct = nil },
			func(c *dpu.ClientConfig) { c.Depth = 5000 },
			func(c *dpu.ClientConfig) { c.Batch = -1 },
			func(c *dpu.ClientConfig) { c.Lease = 2 * time.Hour },
			func(c *dpu.ClientConfig) { c.Tenant = string(make([]byte, 256)) },
			func(c *dpu.ClientConfig) { c.Policy.Path = dpu.CrossGVMI },
			func(c *dpu.ClientConfig) { c.Policy.MaxDepth = -1 },
		} {
			cfg := w.ccfg
			f(&cfg)
			_, err := dpu.NewClient(t.Context(), cfg)
			require.Error(t, err)
		}
		for _, f := range []func(*dpu.AgentConfig){
			func(c *dpu.AgentConfig) { c.Device = nil },
			func(c *dpu.AgentConfig) { c.Backends = nil },
			func(c *dpu.AgentConfig) { c.Chunk = 100 },
			func(c *dpu.AgentConfig) { c.BytesInFlight = 5000 },
			func(c *dpu.AgentConfig) { c.Batch = -1 },
			func(c *dpu.AgentConfig) { c.Tenants = map[string]dpu.Tenant{"x": {Backends: []uint32{9}}} },
			func(c *dpu.AgentConfig) { c.Tenants = map[string]dpu.Tenant{"x": {MaxOps: -1}} },
		} {
			cfg := w.acfg
			f(&cfg)
			_, err := dpu.NewAgent(cfg)
			require.Error(t, err)
		}
		w.down()
	})
}
