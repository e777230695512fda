package provider

// WaitState is what a wait remembers. Layout: struct zr_wait.
type WaitState struct {
	Armed int32 // an event was asked for and not taken yet
	Spun  int32 // result of the spin: 0 none, 1 it found a completion, 2 in vain
	Tick  int64 // a coarse clock at the start, in ns; it costs no system call

	Other uint64 // cookie of another CQ whose event was taken, or 0
}

// CQWaiter is a CQ that can do the whole of a bounded wait in one call.
type CQWaiter interface {
	// WaitEvent polls; when there is nothing it spins for at most spinNS, arms
	// the queue unless w.Armed, polls again, and sleeps on ch for at most napNS,
	// holding its thread. With nothing after all that it returns 0, armed. It
	// ends early with an event of another CQ, in w.Other.
	// Without a channel it only polls and spins.
	WaitEvent(ch CompChannel, wc []WC, spinNS, napNS int64, w *WaitState) (int, error)
}

// Exchange is what an Exchanger is asked for and what it did. Layout: struct
// zr_exchange.
type Exchange struct {
	SpinNS                        int64
	NumRecv, NumSend, NumWC, Want int32
	Recvs, Sends, WCs             int32 // how many were posted, and polled
	Failed                        int32 // the step that failed: ExchangeRecv, ExchangeSend or ExchangePoll
	Tick                          int64 // as in WaitState
}

// The steps of an exchange.
const (
	ExchangeRecv = 1
	ExchangeSend = 2
	ExchangePoll = 3
)

// Exchanger is a QP that can post and poll in one call.
type Exchanger interface {
	// Exchange posts recv, posts send and polls both completion queues, which
	// may be the same, until x.Want completions are in wc or x.SpinNS is over.
	// The first step that fails ends it.
	Exchange(scq, rcq CQ, recv []RecvWR, recvSGE []SGE, send []WR, sendSGE []SGE, wc []WC, x *Exchange) error
}
