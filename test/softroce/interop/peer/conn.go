package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/zrdma/zrdma/verbs"
)

// shape is what a connection is made with.
type shape struct {
	recvs, firstRecvs, slots, sends int
	rnrRetry                        uint8
	lateRecvs                       bool // hello's receive is not posted again
}

// connector makes connections, by the connection manager or by text.
type connector interface {
	open(ctx context.Context, s shape) (*conn, error)
	io.Closer
}

func newConnector(ctx context.Context, o *options) (connector, error) {
	if o.oob {
		return newText(ctx, o)
	}
	return newManager(ctx, o)
}

// remote is the peer's memory.
type remote struct {
	win, winLen, ro, roLen, atm uint64
	winKey, roKey, atmKey       verbs.RKey
}

// conn is a connection with memory.
type conn struct {
	o  *options
	s  shape
	qp *verbs.QP
	cq *verbs.CQ
	pd *verbs.PD

	slot                    int // bytes of a slot in recv, win and src
	recv, win, src, ro, atm *verbs.MR
	peer                    remote

	wc      []verbs.WC
	unread  []verbs.WC
	settle  func(context.Context) error // waits until the peer is done too
	settled bool
	owned   []io.Closer // closed last to first
}

const helloLen, helloMagic = 72, 0x7a72646d61706565

// Kinds of request, the top byte of an id.
const (
	idRecv = 1 + iota
	idOp
	idControl
)

func id(kind int, n uint64) uint64 { return uint64(kind)<<56 | n }
func idKind(v uint64) int          { return int(v >> 56) }
func idNumber(v uint64) uint64     { return v & (1<<56 - 1) }

// Tags of immediates.
const (
	tagSend   = 0x10
	tagWrite  = 0x20
	tagOK     = 0xa0
	tagCredit = 0xc0
	tagEnd    = 0xe0
	tagFin    = 0xf0
)

func tagged(tag uint32, n uint64) uint32 { return tag<<24 | uint32(n&0xffffff) }

// setup makes memory in c.pd, and posts the first receives to c.qp.
func (c *conn) setup(s shape) error {
	c.s = s
	c.wc = make([]verbs.WC, 16)
	max := int(c.o.max)
	c.slot = (max+63)/64*64 + 2*margin
	for _, r := range []struct {
		mr     **verbs.MR
		n      int
		access verbs.AccessFlags
	}{
		{&c.recv, s.recvs * c.slot, verbs.AccessLocalWrite},
		{&c.src, s.slots * c.slot, verbs.AccessLocalWrite},
		{&c.win, s.slots * c.slot, verbs.AccessLocalWrite | verbs.AccessRemoteWrite | verbs.AccessMWBind},
		{&c.ro, max + 4096, verbs.AccessLocalWrite | verbs.AccessRemoteRead},
		// Behind the counters lies the hello message, until the peer has it.
		{&c.atm, counters*8 + helloLen, verbs.AccessLocalWrite | verbs.AccessRemoteAtomic},
	} {
		mr, err := c.pd.RegMR(make([]byte, r.n), r.access)
		if err != nil {
			return err
		}
		c.own(mr)
		*r.mr = mr
	}
	fill(c.ro.Bytes(), c.o.draw(c.o.me, 0, fieldReadable), 0)
	for i := range s.firstRecvs {
		if err := c.postRecv(i); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) own(x io.Closer) { c.owned = append(c.owned, x) }

func (c *conn) free() error {
	var err error
	for i := len(c.owned) - 1; i >= 0; i-- {
		err = errors.Join(err, c.owned[i].Close())
	}
	c.owned = nil
	return err
}

func (c *conn) postRecv(slot int) error {
	_, err := c.qp.PostRecv([]verbs.RecvWR{{ID: id(idRecv, uint64(slot)), SGList: []verbs.SGE{c.recv.SGE(slot*c.slot, c.slot)}}})
	return err
}

// received is what a receive got.
func (c *conn) received(w *verbs.WC) []byte {
	at := int(idNumber(w.WRID)) * c.slot
	return c.recv.Bytes()[at : at+int(w.ByteLen)]
}

func (c *conn) again(w *verbs.WC) error { return c.postRecv(int(idNumber(w.WRID))) }

// next waits for a completion, of success or not.
func (c *conn) next(ctx context.Context) (verbs.WC, error) {
	for len(c.unread) == 0 {
		n, err := c.cq.Wait(ctx, c.wc, 0)
		if err != nil {
			return verbs.WC{}, fmt.Errorf("waiting for a completion: %w", err)
		}
		c.unread = c.wc[:n]
	}
	w := c.unread[0]
	c.unread = c.unread[1:]
	return w, nil
}

func (c *conn) post(wrs ...verbs.SendWR) error {
	_, err := c.qp.PostSend(wrs)
	return err
}

// control sends an immediate and nothing else.
func (c *conn) control(imm uint32) error {
	return c.post(verbs.SendWR{ID: id(idControl, uint64(imm)), Opcode: verbs.WRSendWithImm, Flags: verbs.SendSignaled, Imm: imm})
}

func (c *conn) sendHello() error {
	b := c.atm.Bytes()[counters*8:][:0]
	for _, v := range []uint64{
		helloMagic, c.win.Addr(), c.win.Len(), uint64(c.win.RKey()),
		c.ro.Addr(), c.ro.Len(), uint64(c.ro.RKey()), c.atm.Addr(), uint64(c.atm.RKey()),
	} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return c.post(verbs.SendWR{ID: id(idControl, 0), Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: []verbs.SGE{c.atm.SGE(counters*8, helloLen)}})
}

// hello exchanges where memory is. The client speaks first: a server that sends
// before it has heard of the client may be too early for the client's queue pair.
// The completion of what was sent here comes later, as control message 0.
func (c *conn) hello(ctx context.Context, sum *summary) error {
	if !c.o.server {
		if err := c.sendHello(); err != nil {
			return err
		}
	}
	w, err := c.next(ctx)
	for err == nil && w.Status == verbs.WCSuccess && idKind(w.WRID) != idRecv {
		w, err = c.next(ctx)
	}
	if err = errors.Join(err, verbs.WCErr(&w)); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	b := c.received(&w)
	if len(b) != helloLen || binary.BigEndian.Uint64(b) != helloMagic {
		return fmt.Errorf("the peer's hello is %x", b)
	}
	v := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	c.peer = remote{
		win: v(1), winLen: v(2), winKey: verbs.RKey(v(3)), ro: v(4), roLen: v(5), roKey: verbs.RKey(v(6)),
		atm: v(7), atmKey: verbs.RKey(v(8)),
	}
	if !c.s.lateRecvs {
		if err := c.again(&w); err != nil {
			return err
		}
	}
	if c.o.server {
		if err := c.sendHello(); err != nil {
			return err
		}
	}
	a, err := c.qp.Query(verbs.QPAttrPathMTU)
	sum.MTU = octets(a.PathMTU)
	return err
}

// goneIsFine says whether the last message may be left unacknowledged: a client
// that has it may disconnect at once, and text connections end in step instead.
func (c *conn) goneIsFine() bool { return c.o.server && !c.o.oob }

// finish waits for the peer to be done, if that was not done yet, and frees all.
func (c *conn) finish(ctx context.Context) error {
	err := c.wait(ctx)
	return errors.Join(err, c.free())
}

func (c *conn) wait(ctx context.Context) error {
	if c.settled {
		return nil
	}
	c.settled = true
	return c.settle(ctx)
}

func octets(m verbs.MTU) int { return 128 << m }
