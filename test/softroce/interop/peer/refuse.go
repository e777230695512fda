package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

type fault int

const (
	badKey  fault = iota
	behind        // the end of the region
	noRight       // the region does not allow it
	tooLong       // for the receive
)

// refusals are what a server must refuse, one connection each.
var refusals = []struct {
	name   string
	op     verbs.WROpcode
	n      int
	how    fault
	status verbs.WCStatus
}{
	{"WRITE, bad rkey", verbs.WRRDMAWrite, 100, badKey, verbs.WCRemAccessErr},
	{"WRITE of several packets, bad rkey", verbs.WRRDMAWrite, 20000, badKey, verbs.WCRemAccessErr},
	{"WRITE_IMM, bad rkey", verbs.WRRDMAWriteWithImm, 100, badKey, verbs.WCRemAccessErr},
	{"READ, bad rkey", verbs.WRRDMARead, 20000, badKey, verbs.WCRemAccessErr},
	{"FETCH_ADD, bad rkey", verbs.WRAtomicFetchAndAdd, 8, badKey, verbs.WCRemAccessErr},
	{"CAS, bad rkey", verbs.WRAtomicCmpAndSwp, 8, badKey, verbs.WCRemAccessErr},
	{"WRITE behind the end", verbs.WRRDMAWrite, 100, behind, verbs.WCRemAccessErr},
	{"READ behind the end", verbs.WRRDMARead, 100, behind, verbs.WCRemAccessErr},
	{"WRITE to what may be read", verbs.WRRDMAWrite, 100, noRight, verbs.WCRemAccessErr},
	{"READ of what may be written", verbs.WRRDMARead, 100, noRight, verbs.WCRemAccessErr},
	{"FETCH_ADD to what may be written", verbs.WRAtomicFetchAndAdd, 8, noRight, verbs.WCRemAccessErr},
	{"SEND longer than the receive", verbs.WRSend, 0, tooLong, verbs.WCRemInvReqErr},
}

func refuse(ctx context.Context, o *options, sum *summary, by connector) error {
	if o.max < 20000 {
		return errors.New("-max of refuse is at least 20000")
	}
	for i := range refusals {
		c, err := by.open(ctx, shape{recvs: 4, firstRecvs: 4, slots: 2, sends: 8, rnrRetry: 7})
		if err != nil {
			return err
		}
		err = c.hello(ctx, sum)
		if err == nil && !o.server {
			err = c.provoke(ctx, sum, i)
		}
		if err == nil {
			err = c.wait(ctx)
		}
		if err == nil && o.server {
			err = c.endure(ctx, i)
		}
		if err = errors.Join(err, c.free()); err != nil {
			return fmt.Errorf("%s: %w", refusals[i].name, err)
		}
	}
	return nil
}

// want waits for the completion of one request, which must end so. It passes
// over what ends by the way: control messages, and receives that are flushed.
func (c *conn) want(ctx context.Context, sum *summary, id uint64, what string, status ...verbs.WCStatus) (verbs.WC, error) {
	for {
		w, err := c.next(ctx)
		if err != nil {
			return w, fmt.Errorf("%s: %w", what, err)
		}
		if w.WRID == id {
			for _, s := range status {
				if w.Status != s {
					continue
				}
				if s != verbs.WCSuccess {
					sum.ExpectedErrors++
				}
				return w, nil
			}
			return w, fmt.Errorf("%s ended in %v instead of %v", what, w.Status, status[0])
		}
		flushed := idKind(w.WRID) == idRecv && w.Status == verbs.WCWRFlushErr
		if !flushed && (idKind(w.WRID) != idControl || w.Status != verbs.WCSuccess) {
			return w, fmt.Errorf("%s: a completion of %#x with %v", what, w.WRID, w.Status)
		}
	}
}

func (c *conn) provoke(ctx context.Context, sum *summary, i int) error {
	r := refusals[i]
	reads, atomic := r.op == verbs.WRRDMARead, r.n == 8
	at, size, key := c.peer.win, c.peer.winLen, c.peer.winKey
	switch {
	case reads:
		at, size, key = c.peer.ro, c.peer.roLen, c.peer.roKey
	case atomic:
		at, key = c.peer.atm, c.peer.atmKey
	}
	n := r.n
	switch r.how {
	case badKey:
		key ^= 0x5a5a5a5a
	case behind:
		at += size - uint64(n) + 1
	case noRight:
		if reads || atomic {
			at, key = c.peer.win, c.peer.winKey
		} else {
			at, key = c.peer.ro, c.peer.roKey
		}
	case tooLong:
		n = c.slot + 1
	}
	for k := range c.src.Bytes() {
		c.src.Bytes()[k] = 0x77
	}
	// First something that is allowed: one byte into the window's first byte.
	good := verbs.SendWR{
		ID: id(idOp, 1), Opcode: verbs.WRRDMAWrite, Flags: verbs.SendSignaled, SGList: []verbs.SGE{c.src.SGE(0, 1)},
		RemoteAddr: c.peer.win, RKey: c.peer.winKey,
	}
	if err := c.post(good); err != nil {
		return err
	}
	if _, err := c.want(ctx, sum, good.ID, "an allowed WRITE", verbs.WCSuccess); err != nil {
		return err
	}
	bad := verbs.SendWR{
		ID: id(idOp, 2), Opcode: r.op, Flags: verbs.SendSignaled, SGList: []verbs.SGE{c.src.SGE(0, n)}, RemoteAddr: at, RKey: key, Swap: 7,
	}
	after := good // what follows is flushed
	after.ID = id(idOp, 3)
	if err := c.post(bad, after); err != nil {
		return err
	}
	sum.Ops += 3
	status := []verbs.WCStatus{r.status}
	if r.how == tooLong {
		// rxe calls it an operational error when the receive ends within a packet.
		status = append(status, verbs.WCRemOpErr)
	}
	if _, err := c.want(ctx, sum, bad.ID, "it", status...); err != nil {
		return err
	}
	_, err := c.want(ctx, sum, after.ID, "the request behind it", verbs.WCWRFlushErr)
	return err
}

// endure checks that nothing but the first byte changed.
func (c *conn) endure(ctx context.Context, i int) error {
	w := c.win.Bytes()
	switch {
	case w[0] != 0x77:
		return errors.New("the allowed WRITE before it is not there")
	case len(bytes.Trim(w[1:], "\x00")) > 0:
		return errors.New("the window changed")
	case len(bytes.Trim(c.atm.Bytes()[:counters*8], "\x00")) > 0:
		return errors.New("a counter changed")
	case differs(c.ro.Bytes(), c.o.draw(c.o.me, 0, fieldReadable), 0) >= 0:
		return errors.New("memory that may be read changed")
	case refusals[i].how != tooLong:
		return nil
	}
	// The specification has LOC_LEN_ERR for the receive; rxe one of the others.
	for {
		w, err := c.next(ctx)
		if err != nil {
			return err
		}
		if idKind(w.WRID) != idRecv {
			continue
		}
		switch w.Status {
		case verbs.WCLocLenErr, verbs.WCRemInvReqErr, verbs.WCLocQPOpErr:
			return nil
		}
		return fmt.Errorf("the short receive ended in %v", w.Status)
	}
}

// rnr: the server has no receive when the client sends. It comes late, and all is
// well, or never, and the client's retries run out.
func rnr(ctx context.Context, o *options, sum *summary, by connector) error {
	for _, late := range []bool{true, false} {
		s := shape{recvs: 8, firstRecvs: 1, slots: 4, sends: 8, lateRecvs: true}
		if late {
			s.rnrRetry = 7
		}
		c, err := by.open(ctx, s)
		if err != nil {
			return err
		}
		err = c.hello(ctx, sum)
		switch {
		case err != nil:
		case !o.server:
			err = c.early(ctx, sum, late)
		case late:
			err = c.late(ctx, sum)
		}
		if err != nil {
			return errors.Join(err, c.free())
		}
		if err := c.finish(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) early(ctx context.Context, sum *summary, late bool) error {
	n := int(c.o.max)
	for k := range 4 {
		at := k * c.slot
		fill(c.src.Bytes()[at:at+n], c.o.draw(c.o.me, uint64(k), fieldRNRKey), 0)
		if err := c.post(verbs.SendWR{ID: id(idOp, uint64(k)), Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: []verbs.SGE{c.src.SGE(at, n)}}); err != nil {
			return err
		}
		sum.Ops++
	}
	for k := range 4 {
		status := verbs.WCSuccess
		switch {
		case !late && k == 0:
			status = verbs.WCRNRRetryExcErr
		case !late:
			status = verbs.WCWRFlushErr
		}
		if _, err := c.want(ctx, sum, id(idOp, uint64(k)), "a SEND without a receive", status); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) late(ctx context.Context, sum *summary) error {
	time.Sleep(150 * time.Millisecond) // the client's messages find nothing
	for k := range 4 {
		if err := c.postRecv(k); err != nil {
			return err
		}
	}
	for k := range 4 {
		w, err := c.want(ctx, sum, id(idRecv, uint64(k)), "a late receive", verbs.WCSuccess)
		if err != nil {
			return err
		}
		b := c.received(&w)
		if len(b) != int(c.o.max) || differs(b, c.o.draw(c.o.other, uint64(k), fieldRNRKey), 0) >= 0 {
			return fmt.Errorf("message %d is damaged", k)
		}
		sum.Messages++
	}
	return nil
}
