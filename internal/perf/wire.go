package perf

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/zrdma/zrdma/internal/endpoint"
)

// message is one line of JSON; one of its fields is set. The order of a
// measurement:
//
//	client          server
//	setup    ->
//	         <-     ready, or refuse
//	start    ->
//	        (messages over the device)
//	stop     ->
//	         <-     done
//
// Either side may send failed instead of what comes next: the measurement is over.
// Closing the connection ends everything.
type message struct {
	Setup  *setup `json:"setup,omitempty"`
	Ready  *ready `json:"ready,omitempty"`
	Refuse string `json:"refuse,omitempty"`
	Start  bool   `json:"start,omitempty"`
	Stop   *stop  `json:"stop,omitempty"`
	Done   *done  `json:"done,omitempty"`
	Failed string `json:"failed,omitempty"`
}

type setup struct {
	Case Case   `json:"case"`
	Host Host   `json:"host"`
	Ends []wend `json:"ends"` // one for each queue pair
}

type ready struct {
	Host Host   `json:"host"`
	Ends []wend `json:"ends"`
	RPC  string `json:"rpc,omitempty"` // address, host:port, of the RPC server
	// Plain says that RPC begins over TCP: there is no connection manager.
	Plain bool `json:"plain,omitempty"`
}

// wend is a queue pair and the memory that its peer may touch.
type wend struct {
	endpoint.Peer
	Addr uint64 `json:"addr"`
	RKey uint32 `json:"rkey"`
}

type stop struct {
	Sent int64 `json:"sent"` // messages that completed
	// Early says that the client was interrupted: the server need not reach the count.
	Early bool `json:"early,omitempty"`
}

// done is what the server has to say of its side.
type done struct {
	Sent     int64   `json:"sent"`
	Received int64   `json:"received"`
	Seconds  float64 `json:"seconds"` // while it sent
	CPU      CPU     `json:"cpu"`
}

const (
	maxMessage = 4 << 20 // bytes of a line: 4096 queue pairs fit
	stepTime   = 20 * time.Second
)

// errHungUp ends a measurement whose peer closed the connection.
var errHungUp = errors.New("the peer closed the connection: it ended, or was ended")

// control is the TCP connection between the ends.
type control struct {
	conn net.Conn
	in   chan message
	gone context.Context // ends, with the reason as its cause, when nothing comes any more
	quit chan struct{}   // closed by close
	once sync.Once
	wmu  sync.Mutex // held around writing a line
}

func newControl(conn net.Conn) *control {
	gone, cancel := context.WithCancelCause(context.Background())
	c := &control{conn: conn, in: make(chan message, 4), quit: make(chan struct{}), gone: gone}
	go func() {
		cancel(c.read())
	}()
	return c
}

// close ends the connection.
func (c *control) close() {
	c.once.Do(func() {
		close(c.quit)
		c.conn.Close()
	})
}

func (c *control) read() error {
	s := bufio.NewScanner(c.conn)
	s.Buffer(make([]byte, 0, 4096), maxMessage)
	for s.Scan() {
		var m message
		if err := json.Unmarshal(s.Bytes(), &m); err != nil {
			return &PeerError{fmt.Sprintf("the peer sent what is no message of the bench protocol: %v", err)}
		}
		select {
		case c.in <- m:
		case <-c.quit:
			return net.ErrClosed
		}
	}
	if err := s.Err(); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("%w (%w)", errHungUp, err)
	}
	return errHungUp
}

func (c *control) send(m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.conn.SetWriteDeadline(time.Now().Add(stepTime))
	if _, err = c.conn.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("%w (%w)", errHungUp, err)
	}
	return nil
}

// next is the next message; what failed or was refused is an error.
func (c *control) next(ctx context.Context, limit time.Duration) (message, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	take := func(m message) (message, error) {
		switch {
		case m.Refuse != "":
			return m, &RefusedError{printable([]byte(m.Refuse))}
		case m.Failed != "":
			return m, fmt.Errorf("on the other end: %s", printable([]byte(m.Failed)))
		}
		return m, nil
	}
	select { // what has come counts more than that no more will
	case m := <-c.in:
		return take(m)
	default:
	}
	select {
	case m := <-c.in:
		return take(m)
	case <-ctx.Done():
		return message{}, context.Cause(ctx)
	case <-c.gone.Done():
		select {
		case m := <-c.in:
			return take(m)
		default:
		}
		return message{}, context.Cause(c.gone)
	case <-timer.C:
		return message{}, fmt.Errorf("the peer said nothing for %v", limit)
	}
}

// RefusedError is a server that does not want to measure that.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return "the server refuses: " + e.Why }

// BusyError is a server that serves another client.
type BusyError struct{ Why string }

func (e *BusyError) Error() string { return e.Why }
