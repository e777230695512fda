package verbs

import (
	"testing"

	"github.com/zrdma/zrdma/internal/provider"
)

type nullQP struct{ provider.QP }

func (nullQP) PostSend(wr []provider.WR, sge []provider.SGE) (int, error)     { return len(wr), nil }
func (nullQP) PostRecv(wr []provider.RecvWR, sge []provider.SGE) (int, error) { return len(wr), nil }
func (nullQP) Exchange(scq, rcq provider.CQ, recv []provider.RecvWR, recvSGE []provider.SGE, send []provider.WR, sendSGE []provider.SGE, wc []WC, x *provider.Exchange) error {
	return nil
}

func BenchmarkPost(b *testing.B) {
	q := &QP{p: nullQP{}, ex: nullQP{}, typ: QPTRC}
	q.state.Store(int32(QPSRTS))
	send := []SendWR{{Opcode: WRSend, Flags: SendSignaled, SGList: []SGE{{Addr: 1, Length: 64}}}}
	recv := []RecvWR{{SGList: []SGE{{Addr: 1, Length: 64}}}}
	b.Run("PostSend", func(b *testing.B) {
		for b.Loop() {
			q.PostSend(send)
		}
	})
	b.Run("PostRecv", func(b *testing.B) {
		for b.Loop() {
			q.PostRecv(recv)
		}
	})
	b.Run("Exchange", func(b *testing.B) {
		x := Exchange{Recv: recv, Send: send, WC: make([]WC, 2)}
		for b.Loop() {
			q.Exchange(&x)
		}
	})
}
