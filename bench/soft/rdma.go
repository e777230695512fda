package main

import (
	"bytes"
	"errors"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// streamRDMA moves count blocks of size bytes by one-sided requests of op, with
// four under way, and verifies the last ones.
func streamRDMA(ca, cb *verbs.Context, op verbs.WROpcode, size, count int, how waiting) error {
	const inFlight = 4
	a, b, err := newPair(ca, cb, inFlight*size, how)
	if err != nil {
		return err
	}
	defer b.close()
	defer a.close()
	dst := b.mem // WRITE
	if op == verbs.WRRDMARead {
		dst = a.mem
	}
	clear(dst)
	posted, done := 0, 0
	for done < count {
		for posted < count && posted-done < inFlight {
			off := posted % inFlight * size
			wr := [1]verbs.SendWR{{ID: uint64(posted), Opcode: op, Flags: verbs.SendSignaled, SGList: []verbs.SGE{a.sge(off, size)},
				RemoteAddr: b.mr.Addr() + uint64(off), RKey: b.mr.RKey()}}
			if _, err := a.qp.PostSend(wr[:]); err != nil {
				return err
			}
			posted++
		}
		wc, err := a.wait()
		if err != nil {
			return err
		}
		done += len(wc)
	}
	if count >= inFlight && !bytes.Equal(a.mem, b.mem) {
		return errors.New("what arrived is not what was sent")
	}
	return nil
}

// pingPongRDMA returns the round-trip times of count messages of size bytes.
func pingPongRDMA(ca, cb *verbs.Context, size, count int, how waiting) ([]time.Duration, error) {
	a, b, err := newPair(ca, cb, 4096, how)
	if err != nil {
		return nil, err
	}
	defer b.close()
	defer a.close()
	for _, e := range []*end{a, b} {
		if _, err := e.qp.PostRecv([]verbs.RecvWR{{SGList: []verbs.SGE{e.sge(2048, size)}}}); err != nil {
			return nil, err
		}
	}
	served := make(chan error, 1)
	go func() { served <- pong(b, size, count) }()
	rtt := make([]time.Duration, 0, count)
	for i := 0; i < count; i++ {
		t := time.Now()
		if err := turn(a, size, true); err != nil {
			return nil, err
		}
		rtt = append(rtt, time.Since(t))
	}
	return rtt, <-served
}

func pong(e *end, size, count int) error {
	for range count {
		if err := turn(e, size, false); err != nil {
			return err
		}
	}
	return nil
}

// turn sends and waits for the answer, or the other way round. The receive is
// posted again before the peer can use it: it sends after this end did.
func turn(e *end, size int, first bool) error {
	send := func() error {
		wr := [1]verbs.SendWR{{Opcode: verbs.WRSend, Flags: verbs.SendSignaled | verbs.SendInline, SGList: []verbs.SGE{e.sge(0, size)}}}
		_, err := e.qp.PostSend(wr[:])
		return err
	}
	if first {
		if err := send(); err != nil {
			return err
		}
	}
	for got := false; !got; {
		wc, err := e.wait()
		if err != nil {
			return err
		}
		for i := range wc {
			got = got || wc[i].IsRecv()
		}
	}
	if _, err := e.qp.PostRecv([]verbs.RecvWR{{SGList: []verbs.SGE{e.sge(2048, size)}}}); err != nil {
		return err
	}
	if !first {
		return send()
	}
	return nil
}

// rateRDMA sends count messages of size bytes on one queue pair, posted in lists
// of batch, one signalled a list.
func rateRDMA(ca, cb *verbs.Context, size, count, batch int, how waiting) error {
	a, b, err := newPair(ca, cb, 4096, how)
	if err != nil {
		return err
	}
	defer b.close()
	defer a.close()
	recv := make([]verbs.RecvWR, depth)
	for i := range recv {
		recv[i] = verbs.RecvWR{SGList: []verbs.SGE{b.sge(0, size)}}
	}
	for range 2 {
		if _, err := b.qp.PostRecv(recv); err != nil {
			return err
		}
	}
	served := make(chan error, 1)
	go func() {
		for got, owed := 0, 0; got < count; {
			wc, err := b.wait()
			if err != nil {
				served <- err
				return
			}
			got, owed = got+len(wc), owed+len(wc)
			for owed >= depth/4 {
				n := min(owed, depth)
				if _, err := b.qp.PostRecv(recv[:n]); err != nil {
					served <- err
					return
				}
				owed -= n
			}
		}
		served <- nil
	}()
	list := make([]verbs.SendWR, batch)
	for i := range list {
		list[i] = verbs.SendWR{Opcode: verbs.WRSend, SGList: []verbs.SGE{a.sge(0, size)}}
	}
	list[batch-1].Flags = verbs.SendSignaled
	for posted, done := 0, 0; done < count; {
		for posted < count && posted-done+batch <= depth {
			if _, err := a.qp.PostSend(list); err != nil {
				return err
			}
			posted += batch
		}
		wc, err := a.wait()
		if err != nil {
			return err
		}
		done += batch * len(wc)
	}
	return <-served
}
