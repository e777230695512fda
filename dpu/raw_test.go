package dpu_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/dpu/internal/wire"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// rawHost is a host that says what the test wants.
type rawHost struct {
	w         *rig
	ctl, data *qp.Conn
	granter   *mr.Granter
	ring      []byte
	reg       *mr.Region
	ringGrant *mr.Grant
	statuses  chan wire.Status
	head      int
	ended     chan error
}

// rawHello may be changed before it is sent.
type rawHello struct {
	wire.HelloBody
	epoch   uint32
	version byte
	secret  string
	ringLen int    // of the ring that is shown; 0: what is right
	early   []byte // sent on the data queue pair before PROOF
}

func (w *rig) rawHost(change func(*rawHello)) (*rawHost, error) {
	h := &rawHost{w: w, statuses: make(chan wire.Status, 100), ended: make(chan error, 1)}
	var err error
	h.granter, err = mr.NewGranter(w.hd.PD(), mr.GranterConfig{})
	require.NoError(w.t, err)
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	h.ctl, err = w.hd.Dial(ctx, w.at, qp.Config{SendDepth: 32, RecvDepth: 16, MaxMessage: 1024, Logger: w.log})
	require.NoError(w.t, err)
	p, err := w.hd.Prepare(netip.Addr{}, qp.Config{SendDepth: 64, RecvDepth: 64, Logger: w.log, OnMessage: h.onData,
		OnEnd: func(_ *qp.Conn, err error) { h.ended <- err }})
	require.NoError(w.t, err)
	defer p.Close()
	hello := rawHello{HelloBody: wire.HelloBody{Writer: dpu.NewWriter(), Slots: 8, Lease: 10_000_000, Data: p.Local()}, epoch: 5, version: wire.Version}
	if change != nil {
		change(&hello)
	}
	said := hello.Append(nil)
	m := wire.Header{Type: wire.Hello, Epoch: hello.epoch}.Append(nil)
	m = append(m, said...)
	m[1] = hello.version
	require.NoError(w.t, h.ctl.SendBytes(ctx, wire.Seal(m)))
	welcome, err := h.hear(ctx, wire.Welcome)
	if err != nil {
		return h, err
	}
	var wel wire.WelcomeBody
	require.NoError(w.t, wel.Decode(welcome))
	h.data, err = p.Connect(wel.Data)
	require.NoError(w.t, err)
	if hello.early != nil {
		_ = h.data.Post(ctx, qp.Op{Kind: qp.Send, Data: hello.early})
		time.Sleep(100 * time.Millisecond)
	}
	h.ring = make([]byte, int(wel.Slots)*wire.EntryLen)
	h.reg, err = mr.Register(h.ring, mr.DefaultAccess, w.hd.PD())
	require.NoError(w.t, err)
	b, err := h.reg.Buf(0, len(h.ring))
	require.NoError(w.t, err)
	if h.ringGrant, err = h.granter.Grant(ctx, h.data, b, mr.DeviceWrites); err != nil {
		_ = b.Release()
		return h, err
	}
	proof := wire.ProofBody{Proof: wire.Sign([]byte(hello.secret), "host", said, welcome), Ring: h.ringGrant.Remote()}
	if hello.ringLen != 0 {
		proof.Ring.Len = uint32(hello.ringLen)
	}
	if err := h.ctl.SendBytes(ctx, wire.Seal(append(wire.Header{Type: wire.Proof, Epoch: hello.epoch}.Append(nil), proof.Append(nil)...))); err != nil {
		return h, err
	}
	_, err = h.hear(ctx, wire.Ready)
	return h, err
}

func (h *rawHost) hear(ctx context.Context, want wire.Type) ([]byte, error) {
	for {
		m, err := h.ctl.Recv(ctx)
		if err != nil {
			return nil, err
		}
		p, err := m.Buf.Bytes()
		require.NoError(h.w.t, err)
		hd, body, err := wire.Parse(append([]byte(nil), p...))
		require.NoError(h.w.t, m.Buf.Release())
		require.NoError(h.w.t, err)
		switch hd.Type {
		case want:
			return body, nil
		case wire.Beat:
		case wire.Bye:
			var y wire.ByeBody
			require.NoError(h.w.t, y.Decode(body))
			return nil, errors.New(y.Text)
		default:
			return nil, fmt.Errorf("message %d", hd.Type)
		}
	}
}

func (h *rawHost) onData(_ *qp.Conn, m qp.Message) {
	if !m.Buf.IsZero() {
		_ = m.Buf.Release()
		return
	}
	first, n := wire.ParseImm(m.Imm)
	for i := first; i < first+n; i++ {
		var s wire.Status
		if err := s.Get(h.ring[i*wire.EntryLen:]); err != nil || int(s.Number) != h.head {
			h.w.t.Error("a status that makes no sense:", err, s, h.head)
			return
		}
		h.head++
		h.statuses <- s
	}
}

// send sends descriptors.
func (h *rawHost) send(ds ...[]byte) {
	m := wire.Header{Type: wire.Descriptors, Epoch: 5, Count: uint16(len(ds))}.Append(nil)
	for _, d := range ds {
		m = append(m, d...)
	}
	// No error is looked for: what the agent does with them may end the queue pair
	// before the message is acknowledged.
	_ = h.data.SendBytes(h.w.t.Context(), wire.Seal(m))
}

// bye is what the agent says in the end.
func (h *rawHost) bye() string {
	ctx, cancel := context.WithTimeout(h.w.t.Context(), 15*time.Second)
	defer cancel()
	_, err := h.hear(ctx, wire.Type(99))
	return err.Error()
}

// close frees everything.
func (h *rawHost) close() {
	if h.ringGrant != nil {
		b, err := h.ringGrant.Revoke(h.w.t.Context())
		require.NoError(h.w.t, err)
		require.NoError(h.w.t, b.Release())
	}
	if h.data != nil {
		require.NoError(h.w.t, h.data.Close())
	}
	require.NoError(h.w.t, h.ctl.Close())
	if h.reg != nil {
		require.NoError(h.w.t, h.reg.Close())
	}
	require.NoError(h.w.t, h.granter.Close())
}

// grant shows a buffer to the agent.
func (h *rawHost) grant(b mr.Buf, d mr.Direction) *mr.Grant {
	g, err := h.granter.Grant(h.w.t.Context(), h.data, b, d)
	require.NoError(h.w.t, err)
	return g
}

func (h *rawHost) revoke(g *mr.Grant) mr.Buf {
	b, err := g.Revoke(h.w.t.Context())
	require.NoError(h.w.t, err)
	return b
}
