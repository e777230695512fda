package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// address is what a peer must know to connect its queue pair to ours.
type address struct {
	lid      uint16 // InfiniBand only; 0 on RoCE
	qpn, psn uint32 // 24 bits each
	gid      verbs.GID
}

func (a address) String() string {
	return fmt.Sprintf("lid %#04x, qpn %#06x, psn %#06x, gid %v", a.lid, a.qpn, a.psn, a.gid.Addr())
}

// On the wire an address is hexadecimal text of fixed width and a zero byte, in
// both directions; the client answers the server's with "done" and a zero byte.
// ibv_rc_pingpong reads each message with one read, so each is one write.
const (
	wireLen      = 4 + 1 + 6 + 1 + 6 + 1 + 32 + 1
	doneMsg      = "done\x00"
	exchangeTime = 10 * time.Second
)

func (a address) encode() []byte {
	return fmt.Appendf(nil, "%04x:%06x:%06x:%x\x00", a.lid, a.qpn&0xffffff, a.psn&0xffffff, a.gid[:])
}

func decode(b []byte) (a address, err error) {
	text, _, _ := strings.Cut(string(b), "\x00")
	f := strings.Split(text, ":")
	if len(f) != 4 {
		return a, fmt.Errorf("%q is not lid:qpn:psn:gid", text)
	}
	lid, err1 := strconv.ParseUint(f[0], 16, 16)
	qpn, err2 := strconv.ParseUint(f[1], 16, 24)
	psn, err3 := strconv.ParseUint(f[2], 16, 24)
	gid, err4 := hex.DecodeString(f[3])
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return a, fmt.Errorf("%q is not lid:qpn:psn:gid: %w", text, err)
	}
	if len(gid) != len(a.gid) {
		return a, fmt.Errorf("%q: the gid has %d bytes, not 16", text, len(gid))
	}
	a.lid, a.qpn, a.psn = uint16(lid), uint32(qpn), uint32(psn)
	copy(a.gid[:], gid)
	return a, nil
}

func readAddress(c net.Conn) (address, error) {
	b := make([]byte, wireLen)
	if _, err := io.ReadFull(c, b); err != nil {
		return address{}, fmt.Errorf("read the peer's address: %w", err)
	}
	return decode(b)
}

// asClient sends our address, and "done" once connect has readied our queue pair
// for the server's, which may then use it.
func asClient(c net.Conn, me address, connect func(peer address) error) error {
	c.SetDeadline(time.Now().Add(exchangeTime))
	if _, err := c.Write(me.encode()); err != nil {
		return err
	}
	peer, err := readAddress(c)
	if err != nil {
		return err
	}
	if err := connect(peer); err != nil {
		return err
	}
	_, err = c.Write([]byte(doneMsg))
	return err
}

// asServer answers only after connect: the client sends as soon as it has our address.
func asServer(c net.Conn, me address, connect func(peer address) error) error {
	c.SetDeadline(time.Now().Add(exchangeTime))
	peer, err := readAddress(c)
	if err != nil {
		return err
	}
	if err := connect(peer); err != nil {
		return err
	}
	if _, err := c.Write(me.encode()); err != nil {
		return err
	}
	b := make([]byte, len(doneMsg))
	if _, err := io.ReadFull(c, b); err != nil {
		return fmt.Errorf("wait for the client's %q: %w", "done", err)
	}
	return nil
}
