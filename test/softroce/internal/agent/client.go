package agent

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Client is the harness's end of a connection.
type Client struct {
	conn io.ReadWriteCloser
	fw   frameWriter
	kmsg func([]byte)

	mu    sync.Mutex // guards next, procs and err
	next  uint32
	procs map[uint32]*Proc
	err   error
	ready chan struct{} // closed at the Hello
	hello Hello
	done  chan struct{} // closed when the connection is broken
}

// NewClient takes ownership of conn. kmsg gets the guest's kernel log, one
// record at a time, from the client's own goroutine; it must not block.
func NewClient(conn io.ReadWriteCloser, kmsg func([]byte)) *Client {
	c := &Client{
		conn: conn, fw: frameWriter{w: conn}, kmsg: kmsg,
		procs: make(map[uint32]*Proc), ready: make(chan struct{}), done: make(chan struct{}),
	}
	go c.read()
	return c
}

// Close breaks the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Done is closed when the connection is broken.
func (c *Client) Done() <-chan struct{} { return c.done }

// WaitReady waits for the guest to say that it is set up.
func (c *Client) WaitReady(ctx context.Context) (Hello, error) {
	select {
	case <-c.ready:
		return c.hello, nil
	case <-c.done:
		return Hello{}, ErrBroken
	case <-ctx.Done():
		return Hello{}, ctx.Err()
	}
}

// Sync asks the guest to write marker into its kernel log.
func (c *Client) Sync(marker string) error {
	return c.fw.write(kindSync, 0, []byte(marker))
}

// Proc is something that runs in the guest.
type Proc struct {
	c       *Client
	id      uint32
	started chan startReply
	exited  chan Status
	stdin   *outStream
	out     [3]*inStream // 1 and 2 are used
	copies  sync.WaitGroup
	copyErr [3]error
}

// Start asks the guest to run req. stdin may be nil; a nil stdout or stderr
// throws that stream away.
func (c *Client) Start(ctx context.Context, req Request, stdin io.Reader, stdout, stderr io.Writer) (*Proc, error) {
	req.Stdin = stdin != nil
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, c.err
	}
	c.next++
	p := &Proc{c: c, id: c.next, started: make(chan startReply, 1), exited: make(chan Status, 1)}
	p.stdin = newOutStream(&c.fw, p.id, 0)
	for fd := byte(1); fd <= 2; fd++ {
		p.out[fd] = newInStream(&c.fw, p.id, fd)
	}
	c.procs[p.id] = p
	c.mu.Unlock()

	if err := c.fw.writeJSON(kindStart, p.id, req); err != nil {
		c.forget(p.id)
		return nil, err
	}
	select {
	case r := <-p.started:
		if r.Err != "" {
			c.forget(p.id)
			return nil, errors.New(r.Err)
		}
	case <-c.done:
		return nil, c.broken()
	case <-ctx.Done():
		_ = p.Signal(9) // the connection may be dead too; the process is given up either way
		return nil, ctx.Err()
	}
	for fd, w := range map[int]io.Writer{1: stdout, 2: stderr} {
		p.copies.Go(func() { p.copyErr[fd] = p.out[fd].copyTo(w) })
	}
	if stdin != nil {
		// Not waited for: a Read of the caller's stdin may never return.
		go func() { _ = p.stdin.copyFrom(stdin) }()
	}
	return p, nil
}

// Signal sends a signal to the process and its children; 9 cannot be refused.
func (p *Proc) Signal(sig int) error {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(sig))
	return p.c.fw.write(kindSignal, p.id, b[:])
}

// Wait returns after the end of the process and of its output.
func (p *Proc) Wait() (Status, error) {
	var st Status
	var err error
	select {
	case st = <-p.exited:
	case <-p.c.done:
		select {
		case st = <-p.exited: // the exit arrived before the connection broke
		default:
			err = p.c.broken()
		}
	}
	p.stdin.abort()
	p.out[1].end()
	p.out[2].end()
	p.copies.Wait()
	p.c.forget(p.id)
	if err == nil {
		err = errors.Join(p.copyErr[1], p.copyErr[2])
	}
	return st, err
}

func (c *Client) forget(id uint32) {
	c.mu.Lock()
	delete(c.procs, id)
	c.mu.Unlock()
}

func (c *Client) broken() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Client) read() {
	var err error
	for {
		var f frame
		if f, err = readFrame(c.conn); err != nil {
			break
		}
		if err = c.handle(f); err != nil {
			break
		}
	}
	if !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", ErrBroken, err)
	} else {
		err = ErrBroken
	}
	c.mu.Lock()
	c.err = err
	c.mu.Unlock()
	close(c.done)
	_ = c.conn.Close() // already broken
}

func (c *Client) handle(f frame) error {
	switch f.kind {
	case kindHello:
		if err := json.Unmarshal(f.body, &c.hello); err != nil {
			return fmt.Errorf("hello: %w", err)
		}
		close(c.ready)
		return nil
	case kindKmsg:
		if c.kmsg != nil {
			c.kmsg(f.body)
		}
		return nil
	}
	c.mu.Lock()
	p := c.procs[f.id]
	c.mu.Unlock()
	if p == nil {
		return nil // a frame of a process that was given up
	}
	switch f.kind {
	case kindStarted:
		var r startReply
		if err := json.Unmarshal(f.body, &r); err != nil {
			return fmt.Errorf("started: %w", err)
		}
		p.started <- r
	case kindExit:
		var st Status
		if err := json.Unmarshal(f.body, &st); err != nil {
			return fmt.Errorf("exit: %w", err)
		}
		p.exited <- st
	case kindData, kindEOF, kindAck:
		return p.stream(f)
	default:
		return fmt.Errorf("frame of unknown kind %d", f.kind)
	}
	return nil
}

func (p *Proc) stream(f frame) error {
	if len(f.body) == 0 {
		return fmt.Errorf("frame of kind %d without a stream", f.kind)
	}
	fd, rest := f.body[0], f.body[1:]
	switch {
	case f.kind == kindAck && fd == 0 && len(rest) == 4:
		p.stdin.ack(int(binary.BigEndian.Uint32(rest)))
	case f.kind == kindData && (fd == 1 || fd == 2):
		p.out[fd].push(rest)
	case f.kind == kindEOF && (fd == 1 || fd == 2):
		p.out[fd].end()
	default:
		return fmt.Errorf("frame of kind %d for stream %d", f.kind, fd)
	}
	return nil
}
