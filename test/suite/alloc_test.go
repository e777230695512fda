package suite_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

// TestAllocs: the calls of the data path allocate nothing.
func TestAllocs(t *testing.T) {
	e := newEnv(t, testDevice(t))
	p := e.rc()
	ex := e.cq(64, &verbs.CQConfig{Extended: true})
	px := e.splitPair(ex)
	ops := e.qp(verbs.QPConfig{SendOps: verbs.QPExWithRDMAWrite})
	e.connect(ops, e.qp(verbs.QPConfig{}), link{})
	m := e.mr(4096, allAccess)

	send := []verbs.SendWR{{ID: 1, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(m.SGE(0, 64))}}
	inline := []verbs.SendWR{{ID: 1, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, Inline: m.Bytes()[:8]}}
	recv := []verbs.RecvWR{{ID: 2, SGList: sgl(m.SGE(1024, 256))}}
	wr := []verbs.SendWR{write(3, m.SGE(0, 8), m.Addr()+512, m.RKey())}
	var wc [4]verbs.WC
	var wcx [4]verbs.WCEx
	fail := func(what string, err error) { t.Fatalf("%s: %v", what, err) }
	one := func(q *verbs.CQ) {
		for {
			n, err := q.Poll(wc[:])
			if err != nil {
				fail("Poll", err)
			}
			if n > 0 {
				if wc[0].Status != verbs.WCSuccess {
					t.Fatalf("completion %+v", wc[0])
				}
				return
			}
		}
	}
	post := func(q *verbs.QP, w []verbs.SendWR) {
		if n, err := q.PostSend(w); n != 1 || err != nil {
			fail("PostSend", err)
		}
	}
	for name, f := range map[string]func(){
		"PostRecv PostSend Poll": func() {
			if _, err := p.b.PostRecv(recv); err != nil {
				fail("PostRecv", err)
			}
			post(p.a, send)
			one(p.b.RecvCQ())
			one(p.a.SendCQ())
		},
		"inline": func() {
			if _, err := p.b.PostRecv(recv); err != nil {
				fail("PostRecv", err)
			}
			post(p.a, inline)
			one(p.b.RecvCQ())
			one(p.a.SendCQ())
		},
		"ReqNotify": func() {
			if err := p.a.SendCQ().ReqNotify(false); err != nil {
				fail("ReqNotify", err)
			}
		},
		"PollSpin": func() {
			post(p.a, wr)
			for {
				n, err := p.a.SendCQ().PollSpin(wc[:], 1e6)
				if err != nil {
					fail("PollSpin", err)
				}
				if n > 0 {
					return
				}
			}
		},
		"Exchange": func() {
			x := verbs.Exchange{Recv: recv, Send: send, WC: wc[:], Want: 1, SpinNS: 1e9}
			if _, err := p.b.PostRecv(recv); err != nil {
				fail("PostRecv", err)
			}
			if err := p.a.Exchange(&x); err != nil || x.N == 0 {
				fail("Exchange", err)
			}
			one(p.b.RecvCQ())
			// The receive that it posted is used up by a message from b.
			post(p.b, send)
			one(p.b.SendCQ())
			for x.Recv, x.Send, x.N = nil, nil, 0; x.N == 0; {
				if err := p.a.Exchange(&x); err != nil {
					fail("Exchange", err)
				}
			}
		},
		"PollEx": func() {
			post(px.a, wr)
			for {
				n, err := ex.PollEx(wcx[:])
				if err != nil {
					fail("PollEx", err)
				}
				if n > 0 {
					return
				}
			}
		},
		"WRPost": func() {
			if _, err := ops.WRPost(wr, false); err != nil {
				fail("WRPost", err)
			}
			one(ops.SendCQ())
		},
	} {
		t.Run(name, func(t *testing.T) {
			f()
			require.Zero(t, testing.AllocsPerRun(200, f), "allocations of one run")
		})
	}
}
