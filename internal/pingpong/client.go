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

	"github.com/zrdma/zrdma/verbs"
)

// Client is the end that asks. One goroutine at a time uses it.
type Client struct {
	e    *end
	conn net.Conn
	peer Hello
	gone context.Context // ends when the server closes the session
	seq  uint64
}

const outSlot, inSlot = 0, 1

// errGone ends a Ping whose server closed the session.
var errGone = errors.New("the server closed the session")

// Dial connects to a server.
func (d *Device) Dial(ctx context.Context, addr string, size int) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, ExchangeTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		h := ""
		if errors.Is(err, syscall.ECONNREFUSED) {
			h = "is `zrdma ping --serve` running there, on this port?"
		}
		return nil, &StepError{Step: "exchange", Cause: err, Hint: h}
	}
	return d.Connect(ctx, conn, size)
}

// Connect starts a session over conn, which it takes ownership of.
func (d *Device) Connect(ctx context.Context, conn net.Conn, size int) (_ *Client, err error) {
	c := &Client{conn: conn}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if err := d.checkSize(size); err != nil {
		return nil, step("size", err)
	}
	gid, err := d.selectGID(localIP(conn), verbs.GID{})
	if err != nil {
		return nil, step("gid", err)
	}
	if c.e, err = d.newEnd(gid, size, 2); err != nil {
		return nil, err
	}
	if err := c.e.postRecv(inSlot); err != nil {
		return nil, step("resources", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn.SetDeadline(time.Now().Add(ExchangeTime))
	if _, err := conn.Write(c.e.hello().Encode()); err != nil {
		return nil, step("exchange", err)
	}
	if c.peer, err = readHello(conn); err != nil {
		return nil, step("exchange", err)
	}
	if c.peer.Size != size {
		return nil, step("exchange", fmt.Errorf("the server answers with messages of %d bytes, not %d", c.peer.Size, size))
	}
	if err := c.e.connect(c.peer); err != nil {
		return nil, err
	}
	if !stop() {
		return nil, step("exchange", context.Cause(ctx))
	}
	conn.SetDeadline(time.Time{})
	gone, cancel := context.WithCancelCause(context.Background())
	c.gone = gone
	go func() {
		io.Copy(io.Discard, conn) // ends with the connection, at the latest in Close
		cancel(errGone)
	}()
	return c, nil
}

// String names both ends.
func (c *Client) String() string {
	return fmt.Sprintf("QP %#x of %v to QP %#x of %v, MTU %d", c.e.qp.QPN(), c.e.gid.GID.Addr(), c.peer.QPN, c.peer.GID.Addr(), 128<<min(c.peer.MTU, c.e.d.attr.ActiveMTU))
}

// Ping sends one message, waits for it to come back and compares. An error ends
// the session: only Close makes sense after it.
func (c *Client) Ping(ctx context.Context) (rtt time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(c.gone, func() { cancel(errGone) })
	defer stop()

	c.seq++
	out, in := c.e.slot(outSlot), c.e.slot(inSlot)
	pattern(out, c.seq)
	start := time.Now()
	if err := c.e.postSend(outSlot, len(out)); err != nil {
		return 0, step("ping", err)
	}
	for sent, received := false, false; !sent || !received; {
		wcs, err := c.e.wait(ctx)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
				err = cause
			}
			return 0, step("ping", err)
		}
		for i := range wcs {
			if wcs[i].WRID&sendBit != 0 {
				sent = true
				continue
			}
			rtt = time.Since(start)
			received = true
			if int(wcs[i].ByteLen) != len(in) {
				return 0, step("ping", fmt.Errorf("%d bytes came back, not %d", wcs[i].ByteLen, len(in)))
			}
		}
	}
	if i := differ(out, in); i >= 0 {
		return 0, step("ping", fmt.Errorf("message %d came back wrong: byte %d is %#02x, not %#02x", c.seq, i, in[i], out[i]))
	}
	return rtt, step("ping", c.e.postRecv(inSlot))
}

// Close ends the session.
func (c *Client) Close() error {
	err := c.conn.Close()
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
