package pingpong

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/verbs"
)

// echoSlots lets receives be posted before the sends of earlier messages have
// completed: a late acknowledgement never makes the server unready.
const echoSlots = 4

// Session is what a server tells about a client that left.
type Session struct {
	Peer   net.Addr
	Size   int
	Echoed int
	Err    error // nil when the client said goodbye
}

// Serve answers clients until ctx ends, any number at a time, and closes l. Every
// session that ended is told to done, one at a time.
func (d *Device) Serve(ctx context.Context, l net.Listener, done func(Session)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	var mu sync.Mutex // held around done
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel() // before the Wait
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return endpoint.Step("exchange", err)
		}
		wg.Go(func() {
			s := d.ServeConn(ctx, conn)
			mu.Lock()
			defer mu.Unlock()
			done(s)
		})
	}
}

// ServeConn answers one client. It takes ownership of conn.
func (d *Device) ServeConn(ctx context.Context, conn net.Conn) Session {
	defer conn.Close()
	s := Session{Peer: conn.RemoteAddr()}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn.SetDeadline(time.Now().Add(ExchangeTime))
	e, err := d.accept(conn, &s)
	if err != nil {
		// A peer that speaks something else is told in vain, which does no harm.
		conn.SetDeadline(time.Now().Add(time.Second))
		conn.Write(encodeRefusal(err.Error()))
		s.Err = err
		return s
	}
	if stop() {
		conn.SetDeadline(time.Time{})
	}
	go func() {
		io.Copy(io.Discard, conn) // the client's end is the session's
		cancel()
	}()
	if err := e.echo(ctx, &s.Echoed); !errors.Is(err, context.Canceled) {
		s.Err = endpoint.Step("ping", err)
	}
	s.Err = errors.Join(s.Err, e.close())
	return s
}

// accept answers the client's hello once a queue pair is ready for it.
func (d *Device) accept(conn net.Conn, s *Session) (*end, error) {
	peer, err := readHello(conn)
	if err != nil {
		return nil, endpoint.Step("exchange", err)
	}
	s.Size = peer.Size
	o := Options{Size: peer.Size, Transport: peer.Transport}
	if err := d.check(&o); err != nil {
		return nil, err
	}
	gid, err := d.SelectGID(endpoint.LocalIP(conn), peer.GID)
	if err != nil {
		return nil, endpoint.Step("gid", err)
	}
	e, err := d.newEnd(gid, o, echoSlots)
	if err != nil {
		return nil, err
	}
	ready := func() error {
		for i := range echoSlots {
			if err := e.postRecv(i); err != nil {
				return endpoint.Step("resources", err)
			}
		}
		if err := e.connect(peer); err != nil {
			return err
		}
		_, err := conn.Write(e.hello().Encode())
		return endpoint.Step("exchange", err)
	}
	if err := ready(); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// meet learns where the sender of a datagram is, when it is not known.
func (e *end) meet(w *verbs.WC, slot int) error {
	if e.o.Transport != UD || e.ah != nil {
		return nil
	}
	a, err := e.qp.PD().Context().InitAHFromWC(e.d.Port(), w, (*[grhLen]byte)(e.buf[slot*e.stride():]))
	if err != nil {
		return endpoint.Step("route", err)
	}
	return e.address(a, w.SrcQP, e.qkey)
}

// echo sends every message back from the buffer it arrived in, until an error: at
// best the end of ctx.
func (e *end) echo(ctx context.Context, count *int) error {
	for {
		wcs, err := e.wait(ctx)
		if err != nil {
			return err
		}
		for i := range wcs {
			slot := int(wcs[i].WRID &^ sendBit)
			if wcs[i].WRID&sendBit != 0 {
				*count++
				e.echoed.Add(1)
				if err := e.postRecv(slot); err != nil {
					return err
				}
				continue
			}
			n := e.length(&wcs[i])
			if n != e.o.Size {
				return fmt.Errorf("a message of %d bytes arrived, not %d", n, e.o.Size)
			}
			if err := e.meet(&wcs[i], slot); err != nil {
				return err
			}
			if err := e.postSend(slot, n, wcs[i].Imm()); err != nil {
				return err
			}
		}
	}
}
