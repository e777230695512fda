package pingpong

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/verbs"
)

// Client is the end that asks. One goroutine at a time uses it.
type Client struct {
	e    *end
	conn net.Conn        // nil: the connection manager brought the ends together
	name string          // both ends
	peer verbs.MTU       // its port's; 0 by the connection manager, which chooses itself
	gone context.Context // ends when the server closes the session
	seq  uint64
}

// Slots: messages are sent from the first and come into the others. A datagram
// that comes late must not take the place of the one that is waited for.
const (
	outSlot = 0
	rcSlots = 2
	udSlots = 8
)

// errGone ends a Ping whose server closed the session.
var errGone = errors.New("the server closed the session")

// ErrLost is a datagram that did not come back in time. The session goes on.
var ErrLost = errors.New("lost")

// Dial connects to a server over TCP at addr, host:port.
func (d *Device) Dial(ctx context.Context, addr string, o Options) (*Client, error) {
	if err := d.check(&o); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, ExchangeTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		h := ""
		if errors.Is(err, syscall.ECONNREFUSED) {
			h = "is `zrdma ping --serve` running there, on this port?"
		}
		return nil, &endpoint.StepError{Step: "exchange", Cause: err, Hint: h}
	}
	return d.Connect(ctx, conn, o)
}

func slotsFor(t Transport) int {
	if t == UD {
		return udSlots
	}
	return rcSlots
}

// Connect starts a session over conn, which it takes ownership of.
func (d *Device) Connect(ctx context.Context, conn net.Conn, o Options) (_ *Client, err error) {
	c := &Client{conn: conn}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if err := d.check(&o); err != nil {
		return nil, err
	}
	gid, err := d.SelectGID(endpoint.LocalIP(conn), verbs.GID{})
	if err != nil {
		return nil, endpoint.Step("gid", err)
	}
	if c.e, err = d.newEnd(gid, o, slotsFor(o.Transport)); err != nil {
		return nil, err
	}
	if err := c.e.postRecvs(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn.SetDeadline(time.Now().Add(ExchangeTime))
	if _, err := conn.Write(c.e.hello().Encode()); err != nil {
		return nil, endpoint.Step("exchange", err)
	}
	peer, err := readHello(conn)
	switch {
	case err != nil:
	case peer.Size != o.Size:
		err = fmt.Errorf("the server answers with messages of %d bytes, not %d", peer.Size, o.Size)
	case peer.Transport != o.Transport:
		err = errors.New("the server has reliable connections only: its release of zrdma is older")
	}
	if err != nil {
		return nil, endpoint.Step("exchange", err)
	}
	if err := c.e.connect(peer); err != nil {
		return nil, err
	}
	if !stop() {
		return nil, endpoint.Step("exchange", context.Cause(ctx))
	}
	conn.SetDeadline(time.Time{})
	gone, cancel := context.WithCancelCause(context.Background())
	c.gone = gone
	go func() {
		io.Copy(io.Discard, conn) // ends with the connection, at the latest in Close
		cancel(errGone)
	}()
	c.peer = peer.MTU
	c.name = fmt.Sprintf("QP %#x of %v to QP %#x of %v, MTU %d", c.e.qp.QPN(), gid.GID.Addr(), peer.QPN, peer.GID.Addr(), 128<<min(peer.MTU, o.MTU))
	return c, nil
}

// postRecvs posts a receive into every slot but the one that is sent from.
func (e *end) postRecvs() error {
	for i := outSlot + 1; i < e.slots; i++ {
		if err := e.postRecv(i); err != nil {
			return endpoint.Step("resources", err)
		}
	}
	return nil
}

// String names both ends.
func (c *Client) String() string { return c.name }

// Ping sends one message, waits for it to come back and compares. A datagram that
// did not come by the end of ctx is ErrLost. Any other error ends the session: only
// Close makes sense after it.
func (c *Client) Ping(ctx context.Context) (rtt time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(c.gone, func() { cancel(context.Cause(c.gone)) })
	defer stop()

	c.seq++
	out := c.e.slot(outSlot)
	pattern(out, c.seq)
	start := time.Now()
	if err := c.e.postSend(outSlot, len(out), uint32(c.seq)); err != nil {
		return 0, endpoint.Step("ping", err)
	}
	for sent, received := false, false; !sent || !received; {
		wcs, err := c.e.wait(ctx)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
				err = cause
			}
			switch {
			case c.e.ah != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
				err = fmt.Errorf("%w: %w", ErrLost, err)
			case sent && errors.Is(ctx.Err(), context.DeadlineExceeded):
				err = &unanswered{err}
			}
			return 0, endpoint.Step("ping", err)
		}
		for i := range wcs {
			w := &wcs[i]
			if w.WRID&sendBit != 0 {
				sent = true
				continue
			}
			end := time.Now()
			slot := int(w.WRID)
			late := c.e.ah != nil && w.Imm() != uint32(c.seq) // of a message that was given up, or a second time
			if !late {
				rtt, received = end.Sub(start), true
				if err := c.compare(out, c.e.slot(slot), c.e.length(w)); err != nil {
					return 0, endpoint.Step("ping", err)
				}
			}
			if err := c.e.postRecv(slot); err != nil {
				return 0, endpoint.Step("ping", err)
			}
		}
	}
	return rtt, nil
}

// unanswered is a message that the peer's device has acknowledged, and that did
// not come back.
type unanswered struct{ error }

func (u *unanswered) Unwrap() error { return u.error }

func (c *Client) compare(out, in []byte, n int) error {
	if n != len(in) {
		return fmt.Errorf("%d bytes came back, not %d", n, len(in))
	}
	if i := differ(out, in); i >= 0 {
		return fmt.Errorf("message %d came back wrong: byte %d is %#02x, not %#02x", c.seq, i, in[i], out[i])
	}
	return nil
}

// Close ends the session.
func (c *Client) Close() error {
	var err error
	if c.conn != nil {
		err = c.conn.Close()
	}
	if c.e == nil {
		return err
	}
	return errors.Join(err, c.e.close())
}

// pattern fills b with what no other message of the session has, in any 8 bytes.
func pattern(b []byte, seq uint64) {
	x := seq * 0x9e3779b97f4a7c15
	for len(b) >= 8 {
		x = x*6364136223846793005 + 1442695040888963407
		binary.LittleEndian.PutUint64(b, x)
		b = b[8:]
	}
	for i := range b {
		b[i] = byte(seq>>(8*i)) + byte(i)
	}
}

// differ is the index of the first byte that is not the same, or -1.
func differ(a, b []byte) int {
	if string(a) == string(b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}
