package rc

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

func TestWindowGrowsAndHalves(t *testing.T) {
	var w window
	w.init(256)
	for _, want := range []int64{64, 128, 256, 256} {
		w.grew(w.now)
		require.Equal(t, want, w.now)
	}
	w.lost()
	require.Equal(t, int64(128), w.now)
	w.grew(127)
	require.Equal(t, int64(128), w.now, "a whole window makes a step")
	w.grew(1)
	require.Equal(t, int64(128+windowStep), w.now)
	for range 10 {
		w.lost()
	}
	require.Equal(t, int64(windowLeast), w.now)
	w.init(3)
	w.lost()
	require.Equal(t, int64(3), w.now, "never above what is allowed")
}

func TestLossHalvesTheWindow(t *testing.T) {
	p := defaults()
	p.window = 256
	n := newNet(t, p)
	key, base := n.b.reg(make([]byte, 300<<10), allAccess)
	n.a.post(1, provider.WRRDMAWrite, make([]byte, 300<<10), base, key, nil)
	lost := false
	n.filter = func(h *host, q *wire.Packet) bool {
		if h == n.a && q.PSN == 7+5 && !lost {
			lost = true
			return false
		}
		return true
	}
	require.Equal(t, windowStart, n.a.qp.Pump(0, 1000))
	n.run()
	require.Equal(t, []provider.WCStatus{0}, status(n.a.sends))
	require.Equal(t, Stats{NAKs: 1}, *n.a.qp.stats)
	require.Equal(t, uint64(1), n.b.qp.stats.Gaps)
	require.Less(t, n.a.qp.win.now, int64(256), "it does not double any more")
}

// TestProbe loses the end of a burst, which nothing that follows can show.
func TestProbe(t *testing.T) {
	for _, op := range []provider.WROpcode{provider.WRRDMAWrite, provider.WRRDMARead} {
		p := defaults()
		p.window, p.probe = 256, 1_000_000
		n := newNet(t, p)
		key, base := n.b.reg(make([]byte, 30<<10), allAccess)
		n.a.post(1, op, make([]byte, 30<<10), base, key, nil)
		seen := map[uint32]bool{}
		n.filter = func(h *host, q *wire.Packet) bool {
			if (h == n.a) == (op == provider.WRRDMARead) || q.PSN < 7+20 || seen[q.PSN] {
				return true
			}
			seen[q.PSN] = true
			return false
		}
		n.run()
		require.Equal(t, []provider.WCStatus{0}, status(n.a.sends))
		require.Equal(t, uint64(1), n.a.qp.stats.Probes, "%v", op)
		require.Zero(t, n.a.qp.stats.Timeouts)
		require.Less(t, n.now, ackTimeout(14))
		require.LessOrEqual(t, n.packets, 30+10+10, "%v: the rest once more, no more than that", op)
	}
}

// TestSlowPeerIsNotLoss delays every answer until after the probe: one packet is
// sent for nothing, and the window stays.
func TestSlowPeerIsNotLoss(t *testing.T) {
	p := defaults()
	p.window, p.probe = 256, 1_000_000
	n := newNet(t, p)
	key, base := n.b.reg(make([]byte, 20<<10), allAccess)
	n.a.post(1, provider.WRRDMAWrite, make([]byte, 20<<10), base, key, nil)
	slow := true
	n.filter = func(h *host, q *wire.Packet) bool { return h == n.a || !slow }
	n.after(1_500_000, func() { slow = false })
	n.run()
	require.Equal(t, []provider.WCStatus{0}, status(n.a.sends))
	require.Equal(t, 0, int(n.a.qp.stats.Timeouts))
	require.Equal(t, int64(windowStart+20), n.a.qp.win.now)
	require.LessOrEqual(t, n.packets, 20+20+5)
}

// TestSlowPeerGoesOn lets the answers trickle in late: what was sent is not sent
// again.
func TestSlowPeerGoesOn(t *testing.T) {
	p := defaults()
	p.window, p.probe = 256, 1_000_000
	n := newNet(t, p)
	key, base := n.b.reg(make([]byte, 200<<10), allAccess)
	n.a.post(1, provider.WRRDMAWrite, make([]byte, 200<<10), base, key, nil)
	require.Equal(t, windowStart, n.a.qp.Pump(0, 1000))
	n.a.qp.Tick(n.a.qp.NextDeadline())
	require.Equal(t, 1, n.a.qp.Pump(1_000_000, 1000), "the probe")
	require.Zero(t, n.a.qp.Pump(1_000_000, 1000))
	n.a.qp.Input(1_100_000, &wire.Packet{Opcode: wire.RCAck, Syndrome: synAck, PSN: 7 + 7}) // the first 8
	require.Equal(t, 16, n.a.qp.Pump(1_100_000, 1000))
	require.Equal(t, int64(psnBase+7+windowStart+16), n.a.qp.req.high, "16 new ones")
}

// TestDistantPeerIsNotProbed has every answer take five times the probe's wait:
// the requester learns that.
func TestDistantPeerIsNotProbed(t *testing.T) {
	p := defaults()
	p.window, p.probe = 256, 1_000_000
	n := newNet(t, p)
	key, base := n.b.reg(make([]byte, 1<<10), allAccess)
	q, now := n.a.qp, int64(0)
	answer := func(i int) {
		n.a.post(uint64(i), provider.WRRDMAWrite, make([]byte, 100), base, key, nil)
		due := now + 5_000_000
		for q.Pump(now, 10); q.NextDeadline() != 0 && q.NextDeadline() < due; q.Pump(now, 10) {
			now = q.NextDeadline()
			q.Tick(now)
		}
		now = due
		q.Input(now, &wire.Packet{Opcode: wire.RCAck, Syndrome: synAck, PSN: narrow(q.req.una)})
	}
	for i := range 3 {
		answer(i)
	}
	probes := q.stats.Probes
	require.NotZero(t, probes, "it has to learn")
	for i := range 50 {
		answer(3 + i)
	}
	require.Equal(t, probes, q.stats.Probes)
	require.Len(t, n.a.sends, 53)
	for range 200 {
		q.req.rtt.start(now, 1)
		q.req.rtt.answered(now+1e9, 1)
	}
	require.Equal(t, int64(mostPatient*1_000_000), q.req.rtt.patience(1_000_000), "within bounds")
}
