package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/internal/pingpong"
)

// session is the messages of one size.
type session struct {
	*pingFlags
	c      pinger
	size   int
	out    io.Writer
	stats  pingpong.Stats
	outErr error // the first of printing
}

func (s *session) print(format string, args ...any) {
	if _, err := fmt.Fprintf(s.out, format, args...); err != nil && s.outErr == nil {
		s.outErr = err
	}
}

// run pings until the count is reached, ctx ends, or a message is lost that a
// reliable connection does not survive.
func (s *session) run(ctx context.Context, lines bool) error {
	next := time.Now()
	for i := 1; (s.count == 0 || i <= s.count) && ctx.Err() == nil && s.outErr == nil; i++ {
		if s.flood && lines {
			s.print(".")
		}
		pctx, cancel := context.WithTimeoutCause(ctx, s.timeout, fmt.Errorf("nothing came back within %v", s.timeout))
		rtt, err := s.c.Ping(pctx)
		cancel()
		switch {
		case err == nil:
			s.stats.Add(rtt)
			s.line(lines, i, rtt)
		case ctx.Err() != nil:
			s.endFlood(lines)
			return nil // interrupted: neither sent nor lost
		case errors.Is(err, pingpong.ErrLost):
			s.stats.Lose()
			if lines && !s.flood {
				s.print("%d bytes: seq=%d lost: nothing came back within %v\n", s.size, i, s.timeout)
			}
		default:
			s.stats.Lose()
			s.endFlood(lines)
			return err
		}
		if next = next.Add(s.interval); i == s.count || s.interval == 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(next)):
		}
	}
	s.endFlood(lines)
	return nil
}

func (s *session) line(lines bool, i int, rtt time.Duration) {
	switch {
	case !lines:
	case s.flood:
		s.print("\b \b")
	default:
		s.print("%d bytes: seq=%d time=%.1f us\n", s.size, i, float64(rtt.Nanoseconds())/1e3)
	}
}

func (s *session) endFlood(lines bool) {
	if s.flood && lines {
		s.print("\n")
	}
}

// runServer answers on TCP and, where there is one, through the connection manager.
func (f *pingFlags) runServer(ctx context.Context, d *pingpong.Device, out io.Writer) error {
	l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(f.tcpPort)))
	if err != nil {
		return &endpoint.StepError{Step: "exchange", Cause: err, Hint: "--tcp-port takes another port, on both ends"}
	}
	var mu sync.Mutex // held around printing
	say := func(format string, args ...any) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := fmt.Fprintf(out, format+"\n", args...)
		return err
	}
	if err := say("answering on TCP port %d with %s", f.tcpPort, d.Name()); err != nil {
		l.Close()
		return coded{err, ExitReport}
	}
	done := func(s pingpong.Session) {
		if s.Err != nil {
			_ = say("%v: %d messages of %d bytes, then: %v", s.Peer, s.Echoed, s.Size, s.Err)
			return
		}
		_ = say("%v: %d messages of %d bytes", s.Peer, s.Echoed, s.Size)
	}
	ctx, cancel := context.WithCancel(ctx)
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel() // before the Wait
	other := func(what string, port int, serve func(ready func()) error) {
		others.Go(func() {
			if err := serve(func() { _ = say("%s on port %d of rdma_cm", what, port) }); err != nil {
				_ = say("no %s on port %d of rdma_cm: %v", what, port, err)
			}
		})
	}
	other("connections", f.tcpPort, func(ready func()) error { return d.ServeCM(ctx, uint16(f.tcpPort), ready, done) })
	other("calls", f.tcpPort+rpcPorts, func(ready func()) error {
		return d.ServeRPC(ctx, net.JoinHostPort("", strconv.Itoa(f.tcpPort+rpcPorts)), ready)
	})
	return d.Serve(ctx, l, done)
}
