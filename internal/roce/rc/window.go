package rc

// window is how many packets may be in flight. What holds it back is a peer that
// cannot take them as fast as they are sent, the socket's buffer above all: a
// burst that overruns it costs more than a small window does. It begins small,
// doubles until something is lost, is halved then, and grows slowly from there.
type window struct {
	now   int64 // packets
	most  int64
	slow  int64 // grow slowly from here on
	acked int64 // since the last slow step
}

const (
	windowStart = 32
	windowLeast = 8
	windowStep  = 4 // of slow growth, for each window that was acknowledged
)

func (w *window) init(most int64) {
	*w = window{now: min(windowStart, most), most: most, slow: most}
}

// grew follows k packets being acknowledged.
func (w *window) grew(k int64) {
	switch {
	case w.now >= w.most:
		return
	case w.now < w.slow:
		w.now = min(w.now+k, w.most)
		return
	}
	if w.acked += k; w.acked >= w.now {
		w.acked = 0
		w.now = min(w.now+windowStep, w.most)
	}
}

// lost follows a loss.
func (w *window) lost() {
	w.now = min(max(w.now/2, windowLeast), w.most)
	w.slow, w.acked = w.now, 0
}

// ackEvery is how many packets may pass without one that asks for an ACK.
func (w *window) ackEvery() int64 { return max(w.now/4, 1) }

// Stats counts what went wrong on the way.
type Stats struct {
	NAKs     uint64 // of a gap, or a response that did not come in its turn: sent again
	Timeouts uint64 // of the ACK timer: sent again
	Probes   uint64 // before that: one packet sent again
	RNRs     uint64 // the peer had no receive
	Gaps     uint64 // packets of the peer that were missing
	Repeats  uint64 // packets of the peer that came again
}

// readChunk is how many bytes one READ asks for at most, unless Config says.
const readChunk = 128 << 10

// setMTU sets the path MTU and what depends on it, in state INIT.
func (q *QP) setMTU(mtu int) {
	q.mtu = mtu
	q.chunk = min(max(int64(q.cfg.ReadChunk/mtu), 1), max(q.win.most/2, 1))
}
