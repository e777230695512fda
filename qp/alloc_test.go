package qp

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
)

// In the steady state posting, completing and receiving allocate nothing. The
// device's own share is measured with raw posts by package verbs: on the software
// device it is nothing either.
func TestNoAllocs(t *testing.T) {
	if raceBuild {
		return // the detector allocates
	}
	da, db := devices(t)
	ctx := t.Context()
	a, b := pairOf(t, da, db, Config{DeadAfter: -1}, Config{DeadAfter: -1, OnMessage: func(_ *Conn, m Message) { _ = m.Buf.Release() }})
	g := must[*mr.Granter](t)(mr.NewGranter(db.PD(), mr.GranterConfig{}))
	grant := must[*mr.Grant](t)(g.Grant(ctx, b, fillBuf(t, db, 4096, 0), mr.DeviceWrites))
	to := grant.Remote()

	data := make([]byte, 64)
	src := fillBuf(t, da, 4096, 1)
	done := make(chan error, 1)
	got := make(chan mr.Buf, 1)
	back := func(r Result) {
		got <- r.Bufs[0]
		done <- r.Err
	}
	ops := make([]Op, 1)
	bufs := make([]mr.Buf, 1)
	for _, c := range []struct {
		name string
		f    func()
	}{
		{"SendBytes", func() { check(t, a.SendBytes(ctx, data)) }},
		{"Write", func() {
			var err error
			src, err = a.Write(ctx, src, to)
			check(t, err)
		}},
		{"Post with Done", func() {
			bufs[0] = src
			ops[0] = Op{Kind: Write, Bufs: bufs, Remote: to, Done: back}
			check(t, a.Post(ctx, ops...))
			check(t, <-done)
			src = <-got
		}},
		{"message in a Buf", func() {
			m, err := da.Pool().TryGet(200)
			check(t, err)
			check(t, a.Send(ctx, m))
		}},
	} {
		for range 1000 {
			c.f()
		}
		require.Zero(t, int(testing.AllocsPerRun(500, c.f)), c.name)
	}
	require.NoError(t, src.Release())
	buf := must[mr.Buf](t)(grant.Revoke(ctx))
	require.NoError(t, buf.Release())
	require.NoError(t, g.Close())
	require.NoError(t, a.Close())
	require.NoError(t, b.Close())
}

func check(t *testing.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}
