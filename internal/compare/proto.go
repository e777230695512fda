package compare

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
	"unicode"
)

// A connection begins with 32 bytes: the magic, what it is for, the version, and
// for data the token of the run. On a control connection JSON messages follow,
// each answered by one; on one for data, what the way wants.
const (
	magic    = "zrdmaCMP"
	protocol = 2

	forControl = 'c'
	forData    = 'd'

	preambleLen = 32
	tokenLen    = 16

	patience = 30 * time.Second // with a peer that should answer at once; the machine may be busy
	idle     = 2 * time.Minute  // of a client, between two runs
	stall    = 5 * time.Second  // of an RPC peer, likewise: a virtual machine that is not run for a second is not dead
)

// While a run goes on the client says that it is alive, and is given up when it has
// not for clientSilence. Tests have less patience.
const aliveEvery = 10 * time.Second

var clientSilence = time.Minute

type preamble struct {
	kind    byte
	version byte
	token   [tokenLen]byte
}

func (p preamble) encode() []byte {
	b := make([]byte, preambleLen)
	copy(b, magic)
	b[8], b[9] = p.kind, p.version
	copy(b[16:], p.token[:])
	return b
}

var errStranger = errors.New("it does not speak the protocol of zrdma compare")

func readPreamble(c net.Conn) (p preamble, err error) {
	b := make([]byte, preambleLen)
	if _, err := io.ReadFull(c, b); err != nil {
		return p, fmt.Errorf("%w (%w)", errStranger, err)
	}
	if string(b[:8]) != magic || b[8] != forControl && b[8] != forData {
		return p, errStranger
	}
	p.kind, p.version = b[8], b[9]
	copy(p.token[:], b[16:])
	return p, nil
}

// message is one of the control connection. Type is one of the constants below.
type message struct {
	Type string `json:"type"`
	Why  string `json:"why,omitempty"` // cannot, failed, busy

	Protocol int   `json:"protocol,omitempty"` // hello
	Host     *Host `json:"host,omitempty"`     // hello

	Way   string `json:"way,omitempty"`   // run
	Job   *Job   `json:"job,omitempty"`   // run
	Token []byte `json:"token,omitempty"` // go: for the data connection
	Sums  []byte `json:"sums,omitempty"`  // go: CRC-32C of each block
	Side  *Side  `json:"side,omitempty"`  // done, failed
}

// The client says hello, then for each run: run, start, stop or abort. The server
// answers each but abort; failed it says at once, instead of the answer to stop.
const (
	msgHello   = "hello"
	msgBusy    = "busy"
	msgRun     = "run"
	msgGo      = "go" // the server has the blocks; the data connection may come
	msgCannot  = "cannot"
	msgReady   = "ready" // the server's end of the way is set up
	msgStart   = "start"
	msgStarted = "started"
	msgAlive   = "alive" // now and then between started and stop; not answered
	msgStop    = "stop"
	msgDone    = "done"
	msgFailed  = "failed"
	msgAbort   = "abort" // the client's end could not be set up
)

// control is a control connection.
type control struct {
	c   net.Conn
	in  *bufio.Reader
	out *json.Encoder
}

func newControl(c net.Conn) *control {
	return &control{c, bufio.NewReader(c), json.NewEncoder(c)}
}

// maxLine bounds a message: the checksums of maxDistinct blocks are the longest.
const maxLine = 8 << 20

func (c *control) send(m message) error {
	_ = c.c.SetWriteDeadline(time.Now().Add(patience))
	if err := c.out.Encode(m); err != nil {
		return fmt.Errorf("telling the other end %q: %w", m.Type, err)
	}
	return nil
}

// receive waits for a message, at most wait; 0: for ever.
func (c *control) receive(wait time.Duration) (m message, err error) {
	var t time.Time
	if wait > 0 {
		t = time.Now().Add(wait)
	}
	_ = c.c.SetReadDeadline(t)
	var line []byte
	for {
		part, err := c.in.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			break
		}
		if len(line) > maxLine {
			return m, fmt.Errorf("a message of more than %s", Size(maxLine))
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return m, err
		}
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("a message that makes no sense: %w", err)
	}
	m.Why = plain(m.Why)
	if h := m.Host; h != nil {
		for _, s := range []*string{&h.Name, &h.Kernel, &h.Arch, &h.Go, &h.Version, &h.Load, &h.Device} {
			*s = plain(*s)
		}
	}
	return m, nil
}

// plain is text of the other end without what a terminal would obey.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) && r != '\n' {
			return '?'
		}
		return r
	}, s)
}

// want waits for a message of a type.
func (c *control) want(wait time.Duration, kind string) (message, error) {
	m, err := c.receive(wait)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return m, errors.New("the server closed the connection")
	case err != nil:
		return m, fmt.Errorf("waiting for the server's %q: %w", kind, err)
	case m.Type == kind:
		return m, nil
	case m.Type == msgCannot:
		return m, &CannotError{"server", m.Why}
	case m.Type == msgFailed:
		return m, &PeerError{m.Why}
	}
	return m, fmt.Errorf("the server said %q where %q was due", m.Type, kind)
}

// maxFrame bounds what the ends of a way tell each other.
const maxFrame = 64 << 10

// sendFrame writes v as JSON with its length before it, so that a reader takes no
// byte of what follows.
func sendFrame(c net.Conn, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	_, err = c.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func receiveFrame(c net.Conn, v any) error {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	defer c.SetReadDeadline(time.Time{})
	var n [4]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		return fmt.Errorf("from the other end: %w", err)
	}
	size := binary.LittleEndian.Uint32(n[:])
	if size > maxFrame {
		return fmt.Errorf("from the other end: a message of %d bytes, at most %d", size, maxFrame)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(c, b); err != nil {
		return fmt.Errorf("from the other end: %w", err)
	}
	return json.Unmarshal(b, v)
}
