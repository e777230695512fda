package rdmanet

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// Addr is the address of one side, host:port.
type Addr string

// Network is "rdma".
func (Addr) Network() string { return "rdma" }

// String is the address.
func (a Addr) String() string { return string(a) }

// Conn is a connection: a net.Conn with CloseWrite.
type Conn struct {
	q             *qp.Conn
	local, remote Addr
	rd, wr        *deadline
	linger        time.Duration
	closed        atomic.Bool
	told          atomic.Bool // an error was returned after the connection had ended
	closing       sync.Once
	closeErr      error // written in closing

	rmu  sync.Mutex // one reader at a time; held while it waits
	cur  mr.Buf     // what is read now; guarded by rmu, as all below
	left []byte     // of cur, not read
	rerr error      // ErrProtocol: the stream cannot be read any more
	eof  atomic.Bool

	wmu      sync.Mutex // one writer at a time; held while it waits
	writer   writer     // guarded by wmu
	mu       sync.Mutex
	out      backlog       // guarded by mu
	room     chan struct{} // a token: the backlog has become less
	wclosed  atomic.Bool   // CloseWrite was called
	received atomic.Uint64 // bytes read
	sent     atomic.Uint64 // bytes that Write and its kin took
	merged   atomic.Uint64 // writes that went along with others
}

var (
	_ net.Conn      = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
)

// New makes a Conn of a connected queue pair, which was made with Config.QP, and
// has no OnMessage; it takes ownership of q, an error excepted. Both sides do so.
func New(q *qp.Conn, cfg Config) (*Conn, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if q.MaxSend() < minMessage {
		return nil, fmt.Errorf("rdmanet: the peer takes messages of %d bytes, at least %d are needed: it must not have qp.Config.Raw, and Config.QP on both sides", q.MaxSend(), minMessage)
	}
	c := &Conn{q: q, local: Addr(q.Local()), remote: Addr(q.Peer()), rd: newDeadline(), wr: newDeadline(), linger: cfg.Linger, room: make(chan struct{}, 1)}
	c.writer.init(q)
	return c, nil
}

// LocalAddr is the address of this side, an Addr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the peer's address, an Addr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// QP is the connection below, for its Stats. It stays the Conn's.
func (c *Conn) QP() *qp.Conn { return c.q }

// SetDeadline bounds Read and Write, also those under way; the zero time is none.
func (c *Conn) SetDeadline(t time.Time) error {
	return c.opError("set", errors.Join(c.rd.set(t), c.wr.set(t)))
}

// SetReadDeadline bounds Read.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.opError("set", c.rd.set(t)) }

// SetWriteDeadline bounds Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.opError("set", c.wr.set(t)) }

// Stats are running counts of a connection. QP has those of the messages.
type Stats struct {
	Read, Written uint64 // bytes
	Merged        uint64 // writes that waited for the peer's room and went along with others
}

// Stats reads the counts.
func (c *Conn) Stats() Stats {
	return Stats{Read: c.received.Load(), Written: c.sent.Load(), Merged: c.merged.Load()}
}
