package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zrdma/zrdma/verbs"
)

// rxe of 6.1 gives programs the kernel's bit for an invalidation, which is 4.
const anyWithInv = verbs.WCWithInv | 4

// granter and user are the two ends of one test: the server grants a window of
// type 2B and tells its key; the client writes through it and takes it away with
// SEND_WITH_INV. At last it tries a key that is gone.
type windows struct {
	*conn
	sum   *summary
	mw    *verbs.MW
	early []verbs.WC // messages that came before the completion waited for
}

func invalidate(ctx context.Context, o *options, sum *summary, by connector) error {
	c, err := by.open(ctx, shape{recvs: 4, firstRecvs: 4, slots: 1, sends: 8, rnrRetry: 7})
	if err != nil {
		return err
	}
	x := &windows{conn: c, sum: sum}
	err = x.run(ctx)
	if err == nil {
		err = c.wait(ctx)
	}
	if x.mw != nil {
		err = errors.Join(err, x.mw.Close())
	}
	return errors.Join(err, c.free())
}

func (x *windows) run(ctx context.Context) (err error) {
	if x.o.server {
		if x.mw, err = x.pd.AllocMW(verbs.MWType2); err != nil {
			return err
		}
	}
	if err := x.hello(ctx, x.sum); err != nil {
		return err
	}
	step := x.use
	if x.o.server {
		step = x.grant
	}
	for i := range x.o.n {
		if err := step(ctx, i); err != nil {
			return fmt.Errorf("window %d: %w", i, err)
		}
	}
	return nil
}

func (x *windows) length(i uint64) int {
	return 1 + int(x.o.draw(1, i, fieldWindowLen)%uint64(x.o.max))
}

// of waits for the completion of a kind of request.
func (x *windows) of(ctx context.Context, kind int) (verbs.WC, error) {
	if kind == idRecv && len(x.early) > 0 {
		w := x.early[0]
		x.early = x.early[1:]
		return w, nil
	}
	for {
		w, err := x.next(ctx)
		if err != nil || idKind(w.WRID) == kind {
			return w, err
		}
		if err := verbs.WCErr(&w); err != nil {
			return w, err
		}
		if idKind(w.WRID) == idRecv {
			x.early = append(x.early, w)
		}
	}
}

func (x *windows) good(ctx context.Context, kind int, what string) (verbs.WC, error) {
	w, err := x.of(ctx, kind)
	if err = errors.Join(err, verbs.WCErr(&w)); err != nil {
		err = fmt.Errorf("%s: %w", what, err)
	}
	return w, err
}

func (x *windows) grant(ctx context.Context, i uint64) error {
	n, key := x.length(i), verbs.IncRKey(x.mw.RKey())
	b := x.win.Bytes()
	fence(b, margin, n)
	err := x.post(verbs.SendWR{
		ID: id(idOp, i), Opcode: verbs.WRBindMW, Flags: verbs.SendSignaled, BindMW: x.mw, BindMR: x.win, RKey: key,
		BindAddr: x.win.Addr() + margin, BindLength: uint64(n), BindAccess: verbs.AccessRemoteWrite,
	})
	if err != nil {
		return err
	}
	x.mw.SetRKey(key)
	if _, err := x.good(ctx, idOp, "BIND_MW"); err != nil {
		return err
	}
	binary.BigEndian.PutUint64(x.src.Bytes(), uint64(key))
	if err := x.post(verbs.SendWR{ID: id(idControl, 1), Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: []verbs.SGE{x.src.SGE(0, 8)}}); err != nil {
		return err
	}
	w, err := x.good(ctx, idRecv, "the client's SEND_WITH_INV")
	if err != nil {
		return err
	}
	if w.Flags&anyWithInv == 0 || w.InvalidatedRKey() != key || uint64(w.ByteLen) != i%3 {
		return fmt.Errorf("the client's SEND_WITH_INV came with flags %#x, key %#x instead of %#x and %d bytes", int(w.Flags), w.InvalidatedRKey(), key, w.ByteLen)
	}
	x.sum.Ops++
	x.sum.Messages++
	x.sum.ReceivedBytes += uint64(n)
	return errors.Join(
		same("WRITE", i, b[margin:margin+n], x.o.draw(0, i, fieldWindowKey), 0),
		fenced("WRITE", i, b, margin, n), x.again(&w))
}

func (x *windows) use(ctx context.Context, i uint64) error {
	w, err := x.good(ctx, idRecv, "the message with the key")
	if err != nil {
		return err
	}
	key := verbs.RKey(binary.BigEndian.Uint64(x.received(&w)))
	if err := x.again(&w); err != nil {
		return err
	}
	n := x.length(i)
	fill(x.src.Bytes()[:n], x.o.draw(0, i, fieldWindowKey), 0)
	write := verbs.SendWR{
		ID: id(idOp, i), Opcode: verbs.WRRDMAWrite, Flags: verbs.SendSignaled, SGList: []verbs.SGE{x.src.SGE(0, n)},
		RemoteAddr: x.peer.win + margin, RKey: key,
	}
	inv := verbs.SendWR{ID: id(idOp, i), Opcode: verbs.WRSendWithInv, Flags: verbs.SendSignaled, InvalidateRKey: key}
	if k := int(i % 3); k > 0 {
		inv.SGList = []verbs.SGE{x.src.SGE(0, min(k, len(x.src.Bytes())))}
	}
	if err := x.post(write, inv); err != nil {
		return err
	}
	for _, what := range []string{"WRITE through a window", "SEND_WITH_INV"} {
		if _, err := x.good(ctx, idOp, what); err != nil {
			return err
		}
	}
	x.sum.Ops += 2
	x.sum.SentBytes += uint64(n)
	if i+1 < x.o.n {
		return nil
	}
	if err := x.post(write); err != nil {
		return err
	}
	if w, err = x.of(ctx, idOp); err != nil {
		return err
	}
	if w.Status != verbs.WCRemAccessErr {
		return fmt.Errorf("WRITE through a window that is gone: %v", w.Status)
	}
	x.sum.ExpectedErrors++
	return nil
}
