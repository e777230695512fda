package rsocket

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/ibv"
)

// DefaultLinger is how long Close waits for the peer's device, unless SetLinger.
const DefaultLinger = 2 * time.Second

// Socket is an rsocket, always in non-blocking mode.
type Socket struct {
	h           handle.Handle
	fd          int
	domain, typ int

	mu      sync.Mutex
	linger  time.Duration // guarded by mu
	channel int           // guarded by mu; 0 when not found yet
	maps    []*iomap      // guarded by mu
	seat    *seats        // guarded by mu: taken, nil for none
	stream  bool          // guarded by mu: has begun to connect, or was accepted
	peer    bool          // guarded by mu: a datagram socket with a default peer

	listening  atomic.Bool
	connecting atomic.Bool
	done       chan struct{} // closed when Close begins
	ending     bool          // guarded by poll.mu: Close has begun
	ended      bool          // guarded by poll.mu: no more waiters
	round      uint64        // guarded by poll.mu: the last that had this socket
}

// modeMu is held while a socket's mode changes, so that its channel can be told
// from the others by that change.
var modeMu sync.Mutex

// New creates a socket of the domain AFInet or AFInet6 and the type Stream or Dgram.
//
// Verb: rsocket(7).
func New(domain, typ int) (*Socket, error) {
	if err := ibv.Loaded(true); err != nil {
		return nil, createErr(err)
	}
	fd, err := ibv.RSocket(domain, typ, 0)
	if err != nil {
		return nil, createErr(err)
	}
	return adopt(fd, domain, typ)
}

// adopt takes ownership of fd.
func adopt(fd, domain, typ int) (*Socket, error) {
	s := &Socket{fd: fd, domain: domain, typ: typ, linger: DefaultLinger, done: make(chan struct{})}
	modeMu.Lock()
	_, err := ibv.RFcntl(fd, ibv.FSetFl, ibv.ONonblock)
	modeMu.Unlock()
	if err == nil {
		err = s.h.Init("rsocket")
	}
	if err != nil {
		ibv.RClose(fd, -1)
		return nil, opErr("rfcntl", err)
	}
	handle.Watch(s, &s.h)
	return s, nil
}

// sit takes a seat for s until Close.
func (s *Socket) sit(at *seats, call, what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seat == nil {
		if !at.take() {
			return errNoSeat(call, what, at)
		}
		s.seat = at
	}
	return nil
}

// do passes the gate; nothing inside it waits.
func (s *Socket) do(call string, f func() error) error {
	if err := s.h.Enter(); err != nil {
		return err
	}
	defer s.h.Exit()
	err := f()
	if err == syscall.ENOENT && s.typ == Dgram {
		return datagramErr(call, err)
	}
	return opErr(call, err)
}

func (s *Socket) streamOnly(call string) error {
	if s.typ == Stream {
		return nil
	}
	return unsupported(call, "not on a datagram rsocket")
}

// FD is the number for PollFD and Select. It is no descriptor for other calls.
func (s *Socket) FD() int { return s.fd }

// Bind gives the socket a local address.
//
// Verb: rbind(7).
func (s *Socket) Bind(a netip.AddrPort) error {
	return s.do("rbind", func() error {
		b, err := sockaddr(a, s.domain)
		if err != nil {
			return err
		}
		return ibv.RBind(s.fd, b)
	})
}

// Listen makes a bound stream socket accept connections.
//
// Verb: rlisten(7).
func (s *Socket) Listen(backlog int) error {
	if err := s.streamOnly("rlisten"); err != nil {
		return err
	}
	return s.do("rlisten", func() error {
		var raw [ibv.SockAddrLen]byte
		if n, err := ibv.RGetSockName(s.fd, &raw); err == nil {
			if a := addrPort(raw[:min(n, len(raw))]).Addr(); a.IsValid() {
				ready(a)
			}
		}
		if err := s.sit(&listenSeats, "rlisten", "listeners"); err != nil {
			return err
		}
		err := ibv.RListen(s.fd, backlog)
		if err == nil {
			s.listening.Store(true)
		}
		return err
	})
}

// Accept takes a connection, or is EAGAIN when there is none.
//
// Verb: raccept(7).
func (s *Socket) Accept() (*Socket, netip.AddrPort, error) {
	var raw [ibv.SockAddrLen]byte
	var c *Socket
	var peer netip.AddrPort
	err := s.do("raccept", func() error {
		if !connSeats.take() {
			return errNoSeat("raccept", "connections", &connSeats)
		}
		fd, n, err := ibv.RAccept(s.fd, &raw)
		if err != nil {
			connSeats.leave()
			return err
		}
		peer = addrPort(raw[:min(n, len(raw))])
		if c, err = adopt(fd, s.domain, Stream); err != nil {
			connSeats.leave()
			return err
		}
		c.stream, c.seat = true, &connSeats
		return nil
	})
	return c, peer, err
}

// Connect begins to connect. EINPROGRESS means: Wait for Out, then Err tells
// the outcome. On a datagram socket it sets the default peer and is immediate.
//
// Verb: rconnect(7).
func (s *Socket) Connect(a netip.AddrPort) error {
	return s.do("rconnect", func() error {
		b, err := sockaddr(a, s.domain)
		if err != nil {
			return err
		}
		if s.typ == Stream {
			ready(a.Addr())
			if err := s.sit(&connSeats, "rconnect", "connections"); err != nil {
				return err
			}
		}
		if err = ibv.RConnect(s.fd, b); err != nil && err != syscall.EINPROGRESS {
			return err
		}
		s.connecting.Store(err != nil)
		s.mu.Lock()
		s.stream, s.peer = s.typ == Stream, s.typ == Dgram
		s.mu.Unlock()
		return err
	})
}

// Err reads and clears the socket's pending error (SO_ERROR).
func (s *Socket) Err() error {
	n, err := s.GetSockOptInt(SolSocket, SoError)
	if err == nil && n != 0 {
		err = syscall.Errno(n)
	}
	return err
}

// Wait parks until one of events (In, Out) holds, or the connection has ended;
// it returns the events that hold. It holds no thread. A listening socket
// waits for In.
func (s *Socket) Wait(ctx context.Context, events int) (int, error) {
	got, err := poll.park(s, int16(events), ctx.Done(), false)
	if err == errStopped {
		err = ctx.Err()
	}
	return int(got), err
}

// channelFD finds what rshutdown and rclose must not wait on, or -1: see
// internal/ibv. Not while the socket connects: the change of mode that finds it
// would let the library's threads wait for the connection manager.
func (s *Socket) channelFD() int {
	if s.connecting.Load() {
		fds := []PollFD{{FD: int32(s.fd), Events: Out}}
		if n, _ := ibv.RPoll(fds, 0); n == 0 {
			return -1
		}
		s.connecting.Store(false)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.channel == 0 && s.stream {
		modeMu.Lock()
		s.channel = max(ibv.RChannel(s.fd), 0)
		modeMu.Unlock()
	}
	if s.channel == 0 {
		return -1
	}
	return s.channel
}

// Shutdown ends receiving, sending or both, and tells the peer. Unlike the C
// call it does not wait for what was sent. EAGAIN: call it again after a while.
//
// Verb: rshutdown(7).
func (s *Socket) Shutdown(how int) error {
	return s.do("rshutdown", func() error {
		ch := s.channelFD()
		modeMu.Lock()
		defer modeMu.Unlock()
		return ibv.RShutdown(s.fd, how, ch)
	})
}

// SetLinger sets how long Close may wait for the peer's device to take what was
// sent; 0 is not at all. What it has not taken by then is lost: that happens to
// a peer that is gone, or that has let hundreds of messages lie unread.
func (s *Socket) SetLinger(d time.Duration) {
	s.mu.Lock()
	s.linger = max(d, 0)
	s.mu.Unlock()
}

// Close wakes every waiter with ErrClosed, ends the connection (see SetLinger)
// and frees the socket.
//
// Verb: rclose(7).
func (s *Socket) Close() error {
	if !s.h.Closed() {
		poll.end(s)
		s.drain()
	}
	return s.h.Close(func() error {
		poll.detach(s)
		s.unmapAll()
		ch := s.channelFD()
		modeMu.Lock()
		defer modeMu.Unlock()
		if err := ibv.RClose(s.fd, ch); err != nil {
			return opErr("rclose", err)
		}
		if s.seat != nil {
			s.seat.leave()
		}
		return nil
	})
}

// drain asks for the end of the connection and waits until it is there.
func (s *Socket) drain() {
	s.mu.Lock()
	linger, stream := s.linger, s.stream
	s.mu.Unlock()
	if !stream || linger == 0 || s.h.Enter() != nil {
		return
	}
	ch := s.channelFD()
	s.h.Exit()
	if ch < 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), linger)
	defer cancel()
	for s.Shutdown(ShutRdWr) == syscall.EAGAIN {
		if sleep(ctx, time.Millisecond) != nil {
			return
		}
	}
	poll.park(s, 0, ctx.Done(), true)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// PeerName is the address of the peer.
//
// Verb: rgetpeername(7).
func (s *Socket) PeerName() (netip.AddrPort, error) {
	return s.name("rgetpeername", ibv.RGetPeerName)
}

// SockName is the local address.
//
// Verb: rgetsockname(7).
func (s *Socket) SockName() (netip.AddrPort, error) {
	return s.name("rgetsockname", ibv.RGetSockName)
}

func (s *Socket) name(call string, get func(int, *[ibv.SockAddrLen]byte) (int, error)) (a netip.AddrPort, err error) {
	err = s.do(call, func() error {
		var raw [ibv.SockAddrLen]byte
		n, err := get(s.fd, &raw)
		a = addrPort(raw[:min(n, len(raw))])
		return err
	})
	return a, err
}

// Fcntl reads (FGetFl) or sets (FSetFl) the flags. The socket stays in
// non-blocking mode: to clear ONonblock is EINVAL.
//
// Verb: rfcntl(7).
func (s *Socket) Fcntl(cmd, arg int) (out int, err error) {
	err = s.do("rfcntl", func() error {
		if cmd == FSetFl && arg&ONonblock == 0 {
			return syscall.EINVAL
		}
		modeMu.Lock()
		defer modeMu.Unlock()
		out, err = ibv.RFcntl(s.fd, cmd, arg)
		return err
	})
	return out, err
}

func bytesOf(n *int32) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(n)), 4) }
