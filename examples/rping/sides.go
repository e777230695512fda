package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

func serve(ctx context.Context, o options) error {
	if o.addr == "" {
		o.addr = "0.0.0.0"
	}
	addr, err := lookup(ctx, o.addr, o.port)
	if err != nil {
		return err
	}
	// The receives must be posted before the client may send.
	sessions := make(chan *session, 1)
	l, err := rdmacm.Listen(ctx, addr, rdmacm.ListenConfig{
		QP: qpConfig(),
		Setup: func(c *rdmacm.Conn) error {
			s, err := newSession(c, o)
			if err == nil {
				select {
				case <-sessions: // of a request that failed
				default:
				}
				sessions <- s
			}
			return err
		},
	})
	if err != nil {
		return err
	}
	defer l.Close()
	for {
		c, err := l.Accept(ctx)
		if err != nil {
			return err
		}
		peer := c.PeerAddr()
		err = serveOne(ctx, o, <-sessions)
		if cerr := c.Close(); err == nil {
			err = cerr
		}
		if !o.persistent {
			return err
		}
		if err != nil {
			fmt.Fprintf(o.out, "client %v: %v\n", peer, err)
		}
	}
}

func serveOne(ctx context.Context, o options, s *session) error {
	defer s.watch(ctx)()
	for {
		src, err := s.recv(ctx, "the client's ping")
		if errors.Is(err, errGone) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := src.check(o.size); err != nil {
			return err
		}
		n := int(src.size)
		if err := s.rdma(ctx, verbs.WRRDMARead, n, src); err != nil {
			return err
		}
		if o.verbose {
			fmt.Fprintln(o.out, "server ping data:", text(s.data.Bytes()[:n]))
		}
		if err := s.send(ctx, info{}); err != nil {
			return err
		}
		sink, err := s.recv(ctx, "the client's second announcement")
		if err != nil {
			return err
		}
		if err := sink.check(o.size); err != nil {
			return err
		}
		if err := s.rdma(ctx, verbs.WRRDMAWrite, min(n, int(sink.size)), sink); err != nil {
			return err
		}
		// A client that has all it wants may be gone before this is acknowledged.
		if err := s.send(ctx, info{}); errors.Is(err, errGone) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func ping(ctx context.Context, o options) error {
	peer, err := lookup(ctx, o.addr, o.port)
	if err != nil {
		return err
	}
	var local netip.AddrPort
	if o.source != "" {
		if local, err = lookup(ctx, o.source, 0); err != nil {
			return err
		}
	}
	var s *session
	dial, cancel := context.WithTimeout(ctx, o.patience)
	defer cancel()
	c, err := rdmacm.Dial(dial, peer, rdmacm.DialConfig{
		Local: local, QP: qpConfig(),
		Setup: func(c *rdmacm.Conn) (err error) { s, err = newSession(c, o); return err },
	})
	if err != nil {
		return err
	}
	err = pingAll(ctx, o, s)
	return errors.Join(err, c.Close())
}

func pingAll(ctx context.Context, o options, s *session) error {
	defer s.watch(ctx)()
	for i := 0; o.count == 0 || i < o.count; i++ {
		fillPing(s.data.Bytes(), i)
		if err := s.announce(ctx, s.data); err != nil {
			return err
		}
		if _, err := s.recv(ctx, "the server to read the ping"); err != nil {
			return err
		}
		if err := s.announce(ctx, s.sink); err != nil {
			return err
		}
		if _, err := s.recv(ctx, "the server to write the ping back"); err != nil {
			return err
		}
		if o.verify && !bytes.Equal(s.data.Bytes(), s.sink.Bytes()) {
			return fmt.Errorf("ping %d came back changed: %q, sent %q", i, text(s.sink.Bytes()), text(s.data.Bytes()))
		}
		if o.verbose {
			fmt.Fprintln(o.out, "ping data:", text(s.sink.Bytes()))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}
