package provider

// WaitState is what a wait remembers. Layout: struct zr_wait.
type WaitState struct {
	Armed int32 // an event was asked for and not taken yet
	Spun  int32 // result of the spin: 0 none, 1 it found a completion, 2 in vain
	Tick  int64 // a coarse clock at the start, in ns; it costs no system call
}

// CQWaiter is a CQ that can do the whole of a bounded wait in one call.
type CQWaiter interface {
	// WaitEvent polls; when there is nothing it spins for at most spinNS, arms
	// the queue unless w.Armed, polls again, and sleeps on ch for at most napNS,
	// holding its thread. With nothing after all that it returns 0, armed.
	// Without a channel it only polls and spins.
	WaitEvent(ch CompChannel, wc []WC, spinNS, napNS int64, w *WaitState) (int, error)
}
