package compare

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/internal/iouring"
)

// uring is what both ends have: a ring, memory that is registered with it, and the
// descriptor of the stream, which blocks: for one that does not, io_uring would
// answer EAGAIN and not wait.
type uring struct {
	e     *env
	ring  *iouring.Ring
	fd    int
	under int   // operations and notifications that have not come back
	seen  int64 // ring.Enters that the meter knows
	buffers
}

// buffers are places of the same size, each registered under its index.
type buffers struct{ places }

func (u *uring) open(e *env, entries int, extra ...[]byte) (err error) {
	u.e = e
	if u.ring, err = iouring.New(entries); err != nil {
		return err
	}
	if u.places, err = newPlaces(e.job); err != nil {
		return err
	}
	var bufs [][]byte
	for i := range e.job.depth() {
		bufs = append(bufs, u.at(i))
	}
	if err := u.ring.Register(append(bufs, extra...)...); err != nil {
		return err
	}
	u.fd, err = e.conn.block()
	return err
}

// wait submits and waits; every completion is counted off.
func (u *uring) wait(ctx context.Context, each func(iouring.Completion)) error {
	err := u.ring.Wait(ctx, func(c iouring.Completion) {
		if !c.More {
			u.under--
		}
		each(c)
	})
	u.e.m.calls.Add(u.ring.Enters - u.seen)
	u.seen = u.ring.Enters
	return err
}

// close waits for what the kernel still does with the memory. The stream must have
// been aborted, or be at its end.
func (u *uring) close() error {
	var errs []error
	if u.ring != nil {
		u.e.conn.abort()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		for u.under > 0 {
			if err := u.wait(ctx, func(iouring.Completion) {}); err != nil {
				// Registered pages stay until the kernel is done with them; the mapping
				// is left too, so that nothing else comes to lie there.
				return errors.Join(fmt.Errorf("%d operations did not come back: %w", u.under, err), u.ring.Close())
			}
		}
		errs = append(errs, u.ring.Close())
	}
	return errors.Join(append(errs, u.unmap())...)
}

// User numbers of operations: what it is, and which buffer.
const (
	uringAsk  = 1 << 32
	uringFile = 2 << 32
	uringSend = 3 << 32
	uringRecv = 4 << 32
)

// uringServer reads requests, and for those that have come and find a buffer makes
// one chain: read a block, send it, read the next. There is one chain at a time,
// for sends of two could mix.
type uringServer struct {
	uring
	asks   []byte
	have   int      // bytes of asks that are not a whole request yet
	queue  []uint64 // blocks to send
	free   []int    // buffers
	chain  int      // operations of the chain that have not come back
	sent   int64
	copied int64
	ended  bool // the client sends no more
}

func serveUring(_ context.Context, e *env) (_ part, err error) {
	s := &uringServer{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.asks, err = anonymous(4096); err != nil {
		return nil, err
	}
	for i := range e.job.depth() {
		s.free = append(s.free, i)
	}
	return s, s.open(e, min(2*e.job.depth()+2, 4096), s.asks)
}

func (s *uringServer) run(ctx context.Context) error {
	if err := s.ask(); err != nil {
		return err
	}
	for {
		var failed error
		err := s.wait(ctx, func(c iouring.Completion) {
			if err := s.completed(c); err != nil && failed == nil {
				failed = err
			}
		})
		if err := errors.Join(failed, err); err != nil {
			return err
		}
		if s.ended && s.chain == 0 && len(s.queue) == 0 {
			return nil
		}
		if s.chain == 0 {
			if err := s.send(); err != nil {
				return err
			}
		}
	}
}

// ask has the next requests read, behind what is left of those before.
func (s *uringServer) ask() error {
	s.under++
	return s.ring.ReadFixed(s.fd, s.asks[s.have:], s.e.job.depth(), -1, false, uringAsk)
}

func (s *uringServer) completed(c iouring.Completion) error {
	kind, buf := c.User&^0xffffffff, int(uint32(c.User))
	switch {
	case kind == uringAsk:
		if c.Err != nil {
			return fmt.Errorf("reading requests: %w", c.Err)
		}
		if c.N == 0 {
			s.ended = true
			return nil
		}
		s.have += c.N
		whole := s.have / requestLen * requestLen
		for at := 0; at < whole; at += requestLen {
			s.queue = append(s.queue, binary.LittleEndian.Uint64(s.asks[at:]))
		}
		s.have = copy(s.asks, s.asks[whole:s.have])
		return s.ask()
	case c.Notified:
		if c.Copied {
			s.copied++
		}
		s.free = append(s.free, buf)
		return nil
	}
	s.chain--
	if c.Err == nil && c.N != s.e.job.Block {
		c.Err = io.ErrUnexpectedEOF
	}
	if kind == uringFile {
		if c.Err != nil {
			return fmt.Errorf("reading the blocks: %w", c.Err)
		}
		return nil
	}
	if !c.More {
		s.free = append(s.free, buf)
	}
	if c.Err != nil {
		return fmt.Errorf("sending: %w", c.Err)
	}
	s.sent++
	return nil
}

// send makes a chain of what can be sent.
func (s *uringServer) send() error {
	n := min(len(s.queue), len(s.free))
	for i, block := range s.queue[:n] {
		buf := s.free[i]
		b := s.at(buf)
		s.under, s.chain = s.under+2, s.chain+2
		if err := s.ring.ReadFixed(int(s.e.src.f.Fd()), b, buf, s.e.src.offset(block), true, uringFile|uint64(buf)); err != nil {
			return err
		}
		if err := s.ring.SendZC(s.fd, b, buf, i < n-1, uringSend|uint64(buf)); err != nil {
			return err
		}
	}
	s.queue = s.queue[:copy(s.queue, s.queue[n:])]
	s.free = s.free[:copy(s.free, s.free[n:])]
	return nil
}

func (s *uringServer) finish() {
	copiedNote(s.e.m, "SEND_ZC", s.sent, s.copied, s.ring == nil || s.ring.TellsCopies())
}

func (s *uringServer) close() error {
	err := s.uring.close()
	if s.asks != nil && s.under == 0 {
		err = errors.Join(err, unix.Munmap(s.asks))
	}
	return err
}

// uringReader reads from TCP into registered buffers.
type uringReader struct{ uring }

func newUringReader(e *env) (_ *uringReader, err error) {
	r := &uringReader{}
	if err := r.open(e, 8); err != nil {
		return nil, errors.Join(err, r.close())
	}
	if why := iouring.ZeroCopyReceive(interfaceOf(e.conn.c.LocalAddr())); why != nil {
		e.m.note("received with a copy by the kernel: " + why.Error())
	}
	return r, nil
}

// interfaceOf is the network interface that has an address.
func interfaceOf(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	all, err := net.Interfaces()
	if !ok || err != nil {
		return "?"
	}
	for _, i := range all {
		addrs, _ := i.Addrs()
		for _, x := range addrs {
			if n, ok := x.(*net.IPNet); ok && (n.IP.Equal(t.IP) || n.IP.IsLoopback() && t.IP.IsLoopback()) {
				return i.Name
			}
		}
	}
	return "?"
}

func (r *uringReader) receive(place int) ([]byte, error) {
	b := r.at(place)
	for got := 0; got < len(b); {
		r.under++
		if err := r.ring.ReadFixed(r.fd, b[got:], place, -1, false, uringRecv); err != nil {
			return nil, err
		}
		var done iouring.Completion
		// The stream is aborted when the run ends, and then the read comes back.
		if err := r.wait(context.Background(), func(c iouring.Completion) { done = c }); err != nil {
			return nil, err
		}
		if done.Err == nil && done.N == 0 {
			done.Err = io.ErrUnexpectedEOF
		}
		if done.Err != nil {
			return nil, done.Err
		}
		got += done.N
	}
	return b, nil
}
