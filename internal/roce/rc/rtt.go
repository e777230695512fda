package rc

// rtt follows how long the peer takes to answer, so that one that is far away, or
// slow, is not taken for silent. The smoothing is that of TCP (RFC 6298).
type rtt struct {
	mean, dev int64 // ns; mean 0: nothing is known yet
	mark      int64 // the answer to packets below it is timed; 0: none is
	since     int64
}

// mostPatient bounds what the rtt makes of Config.Probe.
const mostPatient = 32

func (r *rtt) start(now, mark int64) {
	if r.mark == 0 {
		r.mark, r.since = mark, now
	}
}

func (r *rtt) answered(now, una int64) {
	if r.mark == 0 || una < r.mark {
		return
	}
	d := now - r.since
	r.mark = 0
	if r.mean == 0 {
		r.mean, r.dev = d, d/2
		return
	}
	r.dev += (max(d-r.mean, r.mean-d) - r.dev) / 4
	r.mean += (d - r.mean) / 8
}

// patience is how long to wait before the peer is asked; least is Config.Probe.
func (r *rtt) patience(least int64) int64 {
	return min(max(r.mean+4*r.dev, least), mostPatient*least)
}
