package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/verbs"
)

// hostile is a client that got through the handshake and then says what it likes:
// frames that are well-formed, as its bytes choose them.
type hostile struct {
	b     *both
	s     *stranger
	raw   bool // the data queue pair counts no credits
	bytes []byte
	epoch uint32
	own   *mr.Region // what it may truly show
	sent  int
}

func (h *hostile) byte() byte {
	if len(h.bytes) == 0 {
		return 0
	}
	x := h.bytes[0]
	h.bytes = h.bytes[1:]
	return x
}

// pick is one of the values.
func pick[T any](h *hostile, of ...T) T { return of[int(h.byte())%len(of)] }

// connect does the handshake; false when the server refuses or gave up.
func (h *hostile) connect() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := h.b.cd.Dial(ctx, h.b.addr, strangeConfig())
	if err != nil {
		return false
	}
	h.epoch = pick(h, uint32(1), 0, 0xffffffff)
	h.s = &stranger{t: h.b.t, c: c, self: hello{major: major, minor: minor, bootID: 7, epoch: h.epoch,
		slot: pick(h, uint32(4096), 256, maxMessage), calls: pick(h, uint32(16), 1, 1<<16)}}
	p, err := h.b.cd.Prepare(netip.Addr{}, strangeConfig())
	if err != nil {
		h.end()
		return false
	}
	h.s.more = append(h.s.more, p)
	local := p.Local()
	if h.raw { // the server is told that it is a Conn with credits
		cfg := strangeConfig()
		cfg.Raw = true
		r, err := h.b.cd.Prepare(netip.Addr{}, cfg)
		if err != nil {
			h.end()
			return false
		}
		h.s.more = []*qp.Prepared{r, p}
		local = disguised(h.b.t, r.Local(), local)
	}
	h.s.self.data = append(h.s.self.data, local)
	h.s.send(h.s.c, header{typ: msgHello}, h.s.self.encode())
	m, err := h.s.recv()
	var said hello
	if err != nil || m.typ != msgHello || said.decode(m.body) != nil {
		h.end()
		return false
	}
	theirs := said.data[0]
	if h.raw {
		b, _ := theirs.MarshalBinary()
		b[41] = 1
		require.NoError(h.b.t, theirs.UnmarshalBinary(b))
	}
	data, err := h.s.more[0].Connect(theirs)
	require.NoError(h.b.t, err)
	h.s.data = append(h.s.data, data)
	for _, c := range []*qp.Conn{h.s.c, h.s.data[0]} {
		h.post(c, encode(header{typ: msgReady, epoch: h.epoch}, parts{body: []byte("ready")}))
	}
	if m, err := h.s.recv(); err != nil || m.typ != msgReady {
		h.end()
		return false
	}
	return true
}

// disguised is the endpoint of a raw queue pair with the hello of another.
func disguised(t testing.TB, raw, cooked qp.Endpoint) (e qp.Endpoint) {
	b, _ := cooked.MarshalBinary()
	r, _ := raw.MarshalBinary()
	copy(b[16:40], r[16:40])
	require.NoError(t, e.UnmarshalBinary(b))
	return e
}

func (h *hostile) end() {
	if h.s != nil {
		h.s.close()
		h.s = nil
	}
}

// post sends a frame; it does not mind when the session is over.
func (h *hostile) post(c *qp.Conn, b []byte) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	buf, err := h.b.cd.Pool().Get(ctx, max(len(b), 1))
	if err != nil {
		return false
	}
	p, err := buf.Bytes()
	if err != nil {
		return false
	}
	copy(p, b)
	op := qp.Op{Kind: qp.Send, Bufs: []mr.Buf{buf}}
	if h.raw && c != h.s.c {
		op.HasImm, op.Imm = true, pick(h, uint32(0), 1, 0xffff, 1<<31, 1<<31|0xffff, 0x7fffffff)
	}
	op.Done = func(r qp.Result) { _ = r.Bufs[0].Release() }
	if err := c.Post(ctx, op); err != nil {
		_ = buf.Release()
		return false
	}
	h.sent++
	return true
}

// frame makes up a frame.
func (h *hostile) frame() (control bool, b []byte) {
	hd := header{typ: pick(h, msgRequest, msgRequest, msgRequest, msgRequest, msgCancel, msgCancel, msgBulkDone, msgPing, msgPong, msgReady, msgHello, msgResponse, msgCancelAck, msgGoAway),
		flags:    pick(h, byte(0), 0, flagPull, flagIdempotent, flagStream, flagStream|flagMore, flagIdempotent|flagReplay, flagError, h.byte()),
		method:   MethodID(pick(h, "echo", "get", "put", "block", "fail", "panic", "nobody")),
		id:       pick(h, uint64(h.byte()), uint64(h.byte()), 1<<32|uint64(h.byte()), 0xffffffffffffffff, 1<<63),
		epoch:    pick(h, h.epoch, h.epoch, h.epoch, h.epoch, h.epoch+1, 0),
		deadline: pick(h, uint32(0), 1, 5000, 1_000_000, 0xffffffff),
		order:    pick(h, uint32(0), 0, 1, 2, 0xffffffff)}
	var p parts
	for range pick(h, 0, 0, 1, 1, 1, 2, 3, maxDescs) {
		d := desc{rail: pick(h, uint16(0), 0, 0, 1, 0xffff), flags: pick(h, uint16(dirToPeer), dirFrom, dirFrom, 0, 3, 0xffff), nonce: uint32(h.byte())}
		d.Len = pick(h, uint32(4096), 4096, 1, 0, 100_000, 1<<30, 0xffffffff)
		d.Addr = pick(h, h.own.MR(h.b.cd.PD()).Addr(), 0, 0xffffffffffffff00, 1<<47)
		d.RKey = pick(h, h.own.MR(h.b.cd.PD()).RKey(), h.own.MR(h.b.cd.PD()).RKey(), 0, 0x1234, verbs.RKey(h.byte()))
		p.descs = append(p.descs, d)
	}
	if hd.typ == msgRequest && hd.flags&flagIdempotent != 0 {
		p.token = make([]byte, tokenLen)
	}
	if hd.typ == msgRequest && hd.flags&flagStream != 0 {
		p.stream, p.offset = true, pick(h, uint64(0), 4096, 1<<63, 0xffffffffffffffff)
	}
	p.body = make([]byte, pick(h, 0, 1, 16, 300, 2000))
	for i := range p.body {
		p.body[i] = byte(i)
	}
	control = h.byte()%3 == 0
	b = encode(hd, p)
	switch h.byte() % 24 { // lies of the frame itself
	case 0:
		b[h.byte()%headerLen] ^= h.byte() | 1
	case 1:
		b = b[:int(h.byte())%len(b)+1]
	case 2:
		binary.LittleEndian.PutUint32(b[24:], 0xfffffff0)
	case 3:
		binary.LittleEndian.PutUint16(b[30:], 0xffff)
	}
	return control, b
}

// attack sends what the bytes say, connecting again when it is thrown out.
func (h *hostile) attack(times int) {
	for range times {
		if len(h.bytes) == 0 {
			break
		}
		if h.s == nil && !h.connect() {
			continue
		}
		control, b := h.frame()
		c := h.s.data[0]
		if control {
			c = h.s.c
		}
		if !h.post(c, b) {
			h.end()
		}
	}
}

// victim does calls of all kinds, which must succeed, until stop.
func victim(t testing.TB, b *both, c *Client, stop <-chan struct{}) (calls int) {
	for {
		for _, mode := range []string{"echo", "get", "put"} {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			var opts []Option
			if mode != "echo" {
				buf, err := b.cd.Pool().Get(ctx, 5000)
				require.NoError(t, err)
				opts = append(opts, ReadInto(buf))
				if mode == "put" {
					opts[0] = WriteFrom(buf)
				}
			}
			r, err := c.Call(ctx, mode, []byte{9}, opts...)
			for CodeOf(err) == ResourceExhausted && mode == "echo" { // calls in all are bounded
				time.Sleep(time.Millisecond)
				r, err = c.Call(ctx, mode, []byte{9}, opts...)
			}
			cancel()
			if err != nil && CodeOf(err) != ResourceExhausted {
				t.Error("another client's call:", mode, err)
				return calls
			}
			r.Release()
			calls++
		}
		select {
		case <-stop:
			return calls
		default:
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// withHostile runs an attack of the bytes beside a client that is served.
func withHostile(t *testing.T, net *rdmatest.Network, bytes []byte) {
	b := newBoth(t, net, ServerConfig{MaxBytes: 8 << 20, Config: Config{MaxCalls: 32, DeadAfter: time.Second}}, echo)
	c := b.dial(Config{})
	own, err := mr.Alloc(1<<20, mr.Config{Access: verbs.AccessLocalWrite | verbs.AccessRemoteWrite | verbs.AccessRemoteRead}, b.cd.PD())
	require.NoError(t, err)
	stop, done := make(chan struct{}), make(chan int)
	go func() { done <- victim(t, b, c, stop) }()
	h := &hostile{b: b, bytes: bytes, own: own}
	h.raw = h.byte()&1 == 1
	h.attack(1000)
	time.Sleep(50 * time.Millisecond)
	h.end()
	close(stop)
	require.NotZero(t, <-done)
	r, err := c.Call(ctxFor(t), "echo", []byte("still there"))
	require.NoError(t, err)
	r.Release()
	require.Equal(t, uint64(1), c.Stats().Sessions, "the other client lost its session")
	require.NoError(t, c.Close())
	time.Sleep(5 * time.Second)
	require.NoError(t, b.s.Close())
	require.NoError(t, <-b.done)
	require.Equal(t, int64(8<<20), b.s.bytes.left.Load(), "the budget")
	st := b.sd.Pool().Stats()
	require.Zero(t, st.Damaged)
	for _, k := range st.Classes {
		require.Equal(t, k.Slots, k.Free, "buffers of %d bytes", k.Size)
	}
	require.NoError(t, own.Close())
	require.NoError(t, b.cd.Close())
	require.NoError(t, b.sd.Close())
}

// TestHostileClient: whatever a client says, the server stays up, the others are
// served, and nothing of it is left.
func TestHostileClient(t *testing.T) {
	for seed := range uint64(*rpcSeeds) {
		virtual(t, func(t *testing.T, net *rdmatest.Network) {
			rng := rand.New(rand.NewPCG(seed, 3))
			bytes := make([]byte, 2000+rng.IntN(6000))
			for i := range bytes {
				bytes[i] = byte(rng.Uint32())
			}
			withHostile(t, net, bytes)
		})
	}
}

// TestFlood: a client that sends requests as fast as it can and takes no answers
// costs the server a bounded number of goroutines and of bytes.
func TestFlood(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{MaxBytes: 8 << 20, Config: Config{MaxCalls: 32, DeadAfter: time.Second}}, echo)
		good := b.dial(Config{})
		stop, done := make(chan struct{}), make(chan int)
		go func() { done <- victim(t, b, good, stop) }()
		before := runtime.NumGoroutine()
		registered := int64(0)
		most := 0
		for round := range 4 {
			h := &hostile{b: b, bytes: make([]byte, 64), raw: round%2 == 1}
			require.True(t, h.connect())
			for i := range uint64(3000) {
				hd := header{typ: msgRequest, method: MethodID([]string{"block", "echo", "nobody"}[i%3]), id: i, epoch: h.epoch}
				if i%7 == 0 {
					hd = header{typ: msgPing, id: i, epoch: h.epoch}
				}
				if i%11 == 0 {
					hd = header{typ: msgCancel, id: i / 2, epoch: h.epoch}
				}
				if !h.post(h.s.data[0], encode(hd, parts{body: make([]byte, 1000)})) {
					break
				}
				most = max(most, runtime.NumGoroutine()-before)
				registered = max(registered, b.sd.Pool().Stats().Registered)
			}
			t.Logf("round %d: %d frames before it was thrown out or stopped by credits", round, h.sent)
			h.end()
		}
		close(stop)
		require.NotZero(t, <-done)
		t.Logf("at most %d more goroutines, %d bytes registered", most, registered)
		require.Less(t, most, 400, "goroutines for a flood")
		require.LessOrEqual(t, registered, int64(64<<20))
		require.Equal(t, uint64(1), good.Stats().Sessions)
		b.close(good)
	})
}

// A READ of the server with a key that is not the client's costs a session, and
// the handler an error; a deadline that has passed costs nothing.
func TestForeignKey(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{}, echo)
		good := b.dial(Config{})
		h := &hostile{b: b, bytes: make([]byte, 64)}
		require.True(t, h.connect())
		d := desc{flags: dirFrom}
		d.Addr, d.Len, d.RKey = 1<<40, 4096, 0x4711
		require.True(t, h.post(h.s.data[0], encode(header{typ: msgRequest, method: MethodID("put"), id: 1, epoch: h.epoch}, parts{descs: []desc{d}})))
		select {
		case <-h.s.data[0].Done():
		case <-time.After(10 * time.Second):
			t.Fatal("the session goes on after an access error")
		}
		h.end()
		r, err := good.Call(ctxFor(t), "echo", []byte("x"))
		require.NoError(t, err)
		r.Release()
		b.close(good)
		require.False(t, errors.Is(err, ErrUnavailable))
	})
}
