package dpu_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/dpu/internal/wire"
	"github.com/zrdma/zrdma/examples/blockstore/block"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
)

// rawAgent is an agent that does what the test wants.
type rawAgent struct {
	w      *rig
	ctl    *qp.Conn
	data   *qp.Conn
	ring   mr.Remote
	epoch  uint32
	number int
	descs  chan wire.Descriptor
	slots  int
}

// serveRaw accepts hosts one after the other and gives each operation to do.
func (w *rig) serveRaw(do func(a *rawAgent, d wire.Descriptor)) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	l, err := w.ad.Listen(ctx, w.at, qp.Config{SendDepth: 32, RecvDepth: 16, MaxMessage: 1024, Logger: w.log})
	require.NoError(w.t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept(ctx)
			if err != nil {
				return
			}
			a := &rawAgent{w: w, ctl: c, descs: make(chan wire.Descriptor, 100)}
			if a.greet(ctx) {
				a.run(ctx, do)
			}
			if a.data != nil {
				_ = a.data.Close()
			}
			_ = c.Close()
		}
	}()
	return func() { cancel(); _ = l.Close(); <-done }
}

func (a *rawAgent) hear(ctx context.Context, want wire.Type) (wire.Header, []byte, bool) {
	for {
		m, err := a.ctl.Recv(ctx)
		if err != nil {
			return wire.Header{}, nil, false
		}
		p, _ := m.Buf.Bytes()
		h, body, err := wire.Parse(append([]byte(nil), p...))
		_ = m.Buf.Release()
		if err != nil || h.Type == wire.Bye {
			return h, nil, false
		}
		if h.Type == want {
			return h, body, true
		}
	}
}

func (a *rawAgent) greet(ctx context.Context) bool {
	h, said, ok := a.hear(ctx, wire.Hello)
	var hello wire.HelloBody
	if !ok || hello.Decode(said) != nil {
		return false
	}
	a.epoch, a.slots = h.Epoch, int(hello.Slots)
	p, err := a.w.ad.Prepare(netip.Addr{}, qp.Config{Logger: a.w.log, OnMessage: func(_ *qp.Conn, m qp.Message) {
		b, _ := m.Buf.Bytes()
		h, body, err := wire.Parse(b)
		if err == nil && h.Type == wire.Descriptors {
			for range h.Count {
				var d wire.Descriptor
				body, _ = d.Next(body)
				a.descs <- d
			}
		}
		_ = m.Buf.Release()
	}})
	if err != nil {
		return false
	}
	w := wire.WelcomeBody{Slots: hello.Slots, MaxBytes: 1 << 30, MaxBlock: 1 << 24, Data: p.Local()}
	if a.data, err = p.Connect(hello.Data); err != nil {
		return false
	}
	if a.ctl.SendBytes(ctx, wire.Seal(append(wire.Header{Type: wire.Welcome, Epoch: a.epoch}.Append(nil), w.Append(nil)...))) != nil {
		return false
	}
	_, body, ok := a.hear(ctx, wire.Proof)
	var proof wire.ProofBody
	if !ok || proof.Decode(body) != nil {
		return false
	}
	a.ring = proof.Ring
	return a.ctl.SendBytes(ctx, wire.Seal(append(wire.Header{Type: wire.Ready, Epoch: a.epoch}.Append(nil), 1))) == nil
}

func (a *rawAgent) run(ctx context.Context, do func(*rawAgent, wire.Descriptor)) {
	beat := time.NewTicker(20 * time.Millisecond)
	defer beat.Stop()
	for {
		select {
		case d := <-a.descs:
			do(a, d)
		case <-beat.C:
			_ = a.ctl.TryPost(qp.Op{Kind: qp.Send, Data: wire.Seal(append(wire.Header{Type: wire.Beat, Epoch: a.epoch}.Append(nil), 1))})
		case <-a.data.Done():
			return
		case <-a.ctl.Done():
			return
		case <-ctx.Done():
			return
		}
	}
}

// write writes n bytes of a seed to the host, at off of the descriptor's memory.
func (a *rawAgent) write(d wire.Descriptor, off, n int, seed uint64) error {
	b := a.buf(n)
	p, _ := b.Bytes()
	block.Content(p, seed)
	return a.post(qp.Op{Kind: qp.Write, Bufs: []mr.Buf{b}, Remote: remote(d, off, n)})
}

// post releases the buffer of what cannot be posted.
func (a *rawAgent) post(o qp.Op) error {
	err := a.data.Post(a.w.t.Context(), o)
	if err != nil && o.Bufs[0].Err() == nil {
		_ = o.Bufs[0].Release()
	}
	return err
}

func remote(d wire.Descriptor, off, n int) mr.Remote {
	var r mr.Remote
	raw, _ := mr.Remote{Addr: d.Addr + uint64(off), Len: uint32(n)}.MarshalBinary()
	raw[12], raw[13], raw[14], raw[15] = byte(d.RKey), byte(d.RKey>>8), byte(d.RKey>>16), byte(d.RKey>>24)
	_ = r.UnmarshalBinary(raw)
	return r
}

func (a *rawAgent) buf(n int) mr.Buf {
	b, err := a.w.ad.Pool().Get(a.w.t.Context(), n)
	require.NoError(a.w.t, err)
	return b
}

// announce puts an entry into the ring.
func (a *rawAgent) announce(s wire.Status, change func(entry []byte, imm *uint32)) {
	s.Epoch, s.Number = a.epoch, uint64(a.number)
	b := a.buf(wire.EntryLen)
	p, _ := b.Bytes()
	s.Put(p)
	at := a.number % a.slots
	imm := wire.Imm(at, 1)
	if change != nil {
		change(p, &imm)
	}
	to, _ := a.ring.Slice(uint64(at*wire.EntryLen), wire.EntryLen)
	a.number++
	_ = a.post(qp.Op{Kind: qp.WriteImm, Bufs: []mr.Buf{b}, Remote: to, Imm: imm})
}

// An agent that lies, at random, about what it does and when: the memory that a call
// has given back never changes again, and nothing but it ever does; the host goes on.
func TestHostileAgent(t *testing.T) {
	const size = 20_000
	for seed := *simSeed; seed < *simSeed+2*uint64(*simSeeds); seed++ {
		rdmatest.Run(t, seed, func(t *testing.T, net *rdmatest.Network) {
			r := rng(seed, 6)
			w := newRig(t, net)
			late := 0
			var lates sync.WaitGroup
			stop := w.serveRaw(func(a *rawAgent, d wire.Descriptor) {
				n := int(d.Len)
				good := func() {
					if d.Op == wire.OpGet {
						_ = a.write(d, 0, n, 1)
					}
					a.announce(wire.Status{ID: d.ID, Size: d.Len}, nil)
				}
				switch r.IntN(9) {
				case 0, 1:
					good()
				case 2, 3: // it says that it is done, and writes after that, for a while
					good()
					pause := time.Duration(r.IntN(300)) * time.Microsecond
					late++
					lates.Go(func() {
						for range 3 {
							time.Sleep(pause)
							if a.write(d, 0, n, 66) != nil {
								return
							}
						}
					})
				case 4: // behind the end
					_ = a.write(d, n-10, 20, 66)
					good()
				case 5: // the wrong direction
					b := a.buf(n)
					if d.Op == wire.OpGet {
						_ = a.post(qp.Op{Kind: qp.Read, Bufs: []mr.Buf{b}, Remote: remote(d, 0, n)})
					} else {
						_ = a.post(qp.Op{Kind: qp.Write, Bufs: []mr.Buf{b}, Remote: remote(d, 0, n)})
					}
				case 6: // entries that make no sense
					a.announce(wire.Status{ID: d.ID, Size: d.Len}, func(e []byte, imm *uint32) {
						switch r.IntN(4) {
						case 0:
							e[r.IntN(len(e))] ^= 1
						case 1:
							*imm = r.Uint32()
						case 2:
							(&wire.Status{ID: d.ID + 7, Epoch: a.epoch, Number: uint64(a.number)}).Put(e)
						default:
							(&wire.Status{ID: d.ID, Epoch: a.epoch + 1, Number: uint64(a.number)}).Put(e)
						}
					})
				case 7: // more than there is room for
					a.announce(wire.Status{ID: d.ID, Size: d.Len + 1}, nil)
				default: // nothing
				}
			})
			w.ccfg.Deadline = 100 * time.Millisecond
			w.ccfg.Policy.Probation = -1
			w.hostUp()
			require.NoError(t, w.put(dpu.WithPath(t.Context(), dpu.Direct), "k", size, 1))
			for i := range 30 {
				if i%3 == 2 {
					if err := w.put(t.Context(), key(i), size, 1); err != nil {
						require.ErrorIs(t, err, dpu.ErrIndeterminate)
					}
					continue
				}
				b := w.buf(size, 9)
				p := w.bytes(b)
				b, err := w.c.Get(t.Context(), "k", b)
				if err != nil {
					continue // it said more than there is room for
				}
				same(t, content(size, 1), w.bytes(b), "seed", seed)
				block.Content(p, 5)
				time.Sleep(time.Duration(i%3) * time.Millisecond) // r is the agent's
				same(t, content(size, 5), p, "memory that was given back has changed; seed", seed)
				require.NoError(t, b.Release())
			}
			st := w.c.Stats()
			if *simTell {
				t.Logf("seed %d: late writes %d, %+v", seed, late, st)
			}
			require.NotZero(t, st.Lost)
			require.NotZero(t, st.FellBack)
			require.NoError(t, w.c.Close())
			stop()
			lates.Wait()
			w.agentUp()
			w.hostUp() // canaries are looked at in the end
			w.down()
		})
	}
}
