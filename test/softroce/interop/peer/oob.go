package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/zrdma/zrdma/verbs"
)

// text connects with a line of text each way.
type text struct {
	o        *options
	listener net.Listener
	local    netip.Addr
}

func newText(ctx context.Context, o *options) (*text, error) {
	t := &text{o: o}
	var err error
	if t.local, err = netip.ParseAddr(o.local); err != nil || !o.server {
		return t, err
	}
	var lc net.ListenConfig
	t.listener, err = lc.Listen(ctx, "tcp", net.JoinHostPort(o.local, strconv.Itoa(o.port)))
	return t, err
}

func (t *text) Close() error {
	if t.listener == nil {
		return nil
	}
	return t.listener.Close()
}

func (t *text) peer(ctx context.Context) (net.Conn, error) {
	if t.o.server {
		stop := context.AfterFunc(ctx, func() { t.listener.Close() })
		defer stop()
		return t.listener.Accept()
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", net.JoinHostPort(t.o.addr, strconv.Itoa(t.o.port)))
}

// say sends a line and returns the peer's.
func say(n net.Conn, r *bufio.Reader, line string) (string, error) {
	if _, err := fmt.Fprintln(n, line); err != nil {
		return "", err
	}
	got, err := r.ReadString('\n')
	return strings.TrimSuffix(got, "\n"), err
}

func both(n net.Conn, r *bufio.Reader, word string) error {
	got, err := say(n, r, word)
	if err == nil && got != word {
		err = fmt.Errorf("the peer said %q instead of %q", got, word)
	}
	return err
}

func (t *text) open(ctx context.Context, s shape) (_ *conn, err error) {
	n, err := t.peer(ctx)
	if err != nil {
		return nil, err
	}
	if d, ok := ctx.Deadline(); ok {
		n.SetDeadline(d)
	}
	r := bufio.NewReader(n)
	c := &conn{o: t.o}
	c.own(n)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.free())
		}
	}()
	dev, err := t.device()
	if err != nil {
		return nil, err
	}
	c.own(dev)
	if err := c.objects(dev, s); err != nil {
		return nil, err
	}
	const access = verbs.AccessLocalWrite | verbs.AccessRemoteWrite | verbs.AccessRemoteRead | verbs.AccessRemoteAtomic
	err = c.qp.Modify(verbs.QPAttr{State: verbs.QPSInit, PortNum: 1, AccessFlags: access},
		verbs.QPAttrState|verbs.QPAttrPKeyIndex|verbs.QPAttrPort|verbs.QPAttrAccessFlags)
	if err != nil {
		return nil, err
	}
	qp := c.owned[len(c.owned)-1]
	c.owned = c.owned[:len(c.owned)-1]
	if err := c.setup(s); err != nil {
		return nil, err
	}
	c.own(qp) // closed before the regions
	sgid, err := dev.SelectGID(1, t.local)
	if err != nil {
		return nil, err
	}
	psn := rand.Uint32()
	if t.o.psn >= 0 {
		psn = uint32(t.o.psn)
	}
	psn &= 0xffffff
	line, err := say(n, r, fmt.Sprintf("%06x %06x %x", c.qp.QPN(), psn, sgid.GID[:]))
	if err != nil {
		return nil, err
	}
	if err := c.connect(line, psn, uint8(sgid.Index)); err != nil {
		return nil, err
	}
	c.settle = func(context.Context) error { return both(n, r, "done") }
	return c, both(n, r, "ready")
}

func (t *text) device() (*verbs.Context, error) {
	if t.o.dev != "" {
		return verbs.Open(t.o.dev)
	}
	return verbs.OpenDefault()
}

// objects makes a queue pair and what it needs; the queue pair is owned last.
func (c *conn) objects(dev *verbs.Context, s shape) error {
	var err error
	if c.pd, err = dev.AllocPD(); err != nil {
		return err
	}
	c.own(c.pd)
	ch, err := dev.CreateCompChannel()
	if err != nil {
		return err
	}
	c.own(ch)
	if c.cq, err = dev.CreateCQ(s.sends+s.recvs, &verbs.CQConfig{Channel: ch}); err != nil {
		return err
	}
	c.own(c.cq)
	c.qp, err = c.pd.CreateQP(verbs.QPConfig{SendCQ: c.cq, Cap: verbs.QPCap{
		MaxSendWR: uint32(s.sends), MaxRecvWR: uint32(s.recvs), MaxSendSGE: 3, MaxRecvSGE: 1, MaxInlineData: 64,
	}})
	if err == nil {
		c.own(c.qp)
	}
	return err
}

// connect takes the peer's line.
func (c *conn) connect(line string, psn uint32, sgid uint8) error {
	var qpn, peerPSN uint32
	var gidHex string
	if _, err := fmt.Sscanf(line, "%x %x %s", &qpn, &peerPSN, &gidHex); err != nil {
		return fmt.Errorf("the peer's address is %q: %w", line, err)
	}
	var gid verbs.GID
	if n, err := hex.Decode(gid[:], []byte(gidHex)); err != nil || n != len(gid) {
		return fmt.Errorf("the peer's GID is %q", gidHex)
	}
	mtu := verbs.MTU256
	for octets(mtu) < c.o.mtu {
		mtu++
	}
	err := c.qp.Modify(verbs.QPAttr{
		State: verbs.QPSRTR, PathMTU: mtu, DestQPN: qpn, RQPSN: peerPSN, MaxDestRdAtomic: 8, MinRNRTimer: 12,
		AH: verbs.AHAttr{IsGlobal: true, PortNum: 1, GRH: verbs.GlobalRoute{DGID: gid, SGIDIndex: sgid, HopLimit: 64}},
	}, verbs.QPAttrState|verbs.QPAttrAV|verbs.QPAttrPathMTU|verbs.QPAttrDestQPN|verbs.QPAttrRQPSN|verbs.QPAttrMaxDestRdAtomic|verbs.QPAttrMinRNRTimer)
	if err != nil {
		return err
	}
	return c.qp.Modify(verbs.QPAttr{State: verbs.QPSRTS, SQPSN: psn, Timeout: uint8(c.o.ack), RetryCnt: 7, RNRRetry: c.s.rnrRetry, MaxRdAtomic: 8},
		verbs.QPAttrState|verbs.QPAttrSQPSN|verbs.QPAttrTimeout|verbs.QPAttrRetryCnt|verbs.QPAttrRNRRetry|verbs.QPAttrMaxQPRdAtomic)
}
