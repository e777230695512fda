package rsocket

import (
	"errors"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/ibv"
)

// errStopped ends a wait whose caller has stopped waiting.
var errStopped = errors.New("rsocket: wait stopped")

// poller stands in rpoll for every waiting socket, in one goroutine on one
// thread, which is parked while nothing waits. A round is one call of rpoll
// over the sockets waited for as it began; an eventfd in the set ends it early.
//
// rpoll is never given a timeout: see internal/ibv/rsocket_linux.c.
type poller struct {
	mu      sync.Mutex
	change  sync.Cond // of what follows
	started bool
	wake    int // eventfd
	waiters map[*waiter]struct{}
	round   uint64
	inside  bool // a round is in rpoll
	kicked  bool // and will end
}

type waiter struct {
	s      *Socket
	events int16
	got    chan int16 // has room for the one answer
}

var poll = newPoller()

func newPoller() *poller {
	p := &poller{waiters: map[*waiter]struct{}{}}
	p.change.L = &p.mu
	return p
}

// park waits until events hold of s, stop is closed or Close of s begins; last
// is for Close itself, which waits for the end of the connection.
func (p *poller) park(s *Socket, events int16, stop <-chan struct{}, last bool) (int16, error) {
	if s.listening.Load() || s.connecting.Load() && !last {
		return s.parkTimed(events, stop)
	}
	w := &waiter{s, events, make(chan int16, 1)}
	if err := p.add(w, last); err != nil {
		return 0, err
	}
	done := s.done
	if last {
		done = nil
	}
	select {
	case got := <-w.got:
		return got, nil
	case <-stop:
		p.remove(w)
		return 0, errStopped
	case <-done:
		p.remove(w)
		return 0, ErrClosed
	}
}

func (p *poller) add(w *waiter, last bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.s.ended || w.s.ending && !last {
		return ErrClosed
	}
	if !p.started {
		fd, err := ibv.REventFD()
		if err != nil {
			return opErr("eventfd", err)
		}
		p.wake, p.started = fd, true
		go p.run()
	}
	p.waiters[w] = struct{}{}
	p.kick()
	return nil
}

func (p *poller) remove(w *waiter) {
	p.mu.Lock()
	delete(p.waiters, w)
	p.mu.Unlock()
}

// kick makes the next round begin soon. mu is held.
func (p *poller) kick() {
	if p.inside && !p.kicked {
		p.kicked = true
		one := [8]byte{1, 1, 1, 1, 1, 1, 1, 1} // not zero in any byte order
		syscall.Write(p.wake, one[:])
	}
	p.change.Broadcast()
}

// end wakes the waiters of s and lets no more in.
func (p *poller) end(s *Socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !s.ending {
		s.ending = true
		close(s.done)
	}
}

// detach returns when no round has s and none will: s may be freed.
func (p *poller) detach(s *Socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.ended = true
	for w := range p.waiters {
		if w.s == s {
			delete(p.waiters, w)
			w.got <- ibv.PollNval
		}
	}
	for p.inside && s.round == p.round {
		p.kick()
		p.change.Wait()
	}
}

func (p *poller) run() {
	runtime.LockOSThread()
	var fds []ibv.PollFD
	var ws []*waiter
	p.mu.Lock()
	for {
		for len(p.waiters) == 0 {
			p.change.Wait()
		}
		p.round++
		fds = append(fds[:0], ibv.PollFD{FD: int32(p.wake), Events: ibv.PollIn})
		ws = ws[:0]
		for w := range p.waiters {
			fds = append(fds, ibv.PollFD{FD: int32(w.s.fd), Events: w.events})
			ws = append(ws, w)
			w.s.round = p.round
		}
		p.inside, p.kicked = true, false
		p.mu.Unlock()
		_, err := ibv.RPoll(fds, -1)
		if err != nil && err != syscall.EINTR {
			time.Sleep(time.Millisecond)
		}
		p.mu.Lock()
		p.inside = false
		if p.kicked {
			var b [8]byte
			syscall.Read(p.wake, b[:])
		}
		for i, w := range ws {
			if got := fds[i+1].Revents; got != 0 && err == nil {
				if _, waits := p.waiters[w]; waits {
					delete(p.waiters, w)
					w.got <- got
				}
			}
		}
		clear(ws)
		p.change.Broadcast()
	}
}

// How often a listening or connecting socket is looked at.
const (
	lookFast = 250 * time.Microsecond
	lookSlow = 20 * time.Millisecond
)

// parkTimed looks again and again. The connection manager's thread of librdmacm
// 44 hands an accepted connection over by a queue that rpoll does not sleep on,
// and tells rpoll of a connect that is done before rpoll can hear it: either
// way rpoll would be 5 s late.
func (s *Socket) parkTimed(events int16, stop <-chan struct{}) (int16, error) {
	fds := []ibv.PollFD{{FD: int32(s.fd), Events: events}}
	t := time.NewTimer(0)
	defer t.Stop()
	for d := lookFast; ; d = min(2*d, lookSlow) {
		select {
		case <-t.C:
		case <-stop:
			return 0, errStopped
		case <-s.done:
			return 0, ErrClosed
		}
		fds[0].Revents = 0
		err := s.do("rpoll", func() error {
			_, err := ibv.RPoll(fds, 0)
			return err
		})
		if err != nil || fds[0].Revents != 0 {
			s.connecting.Store(false)
			return fds[0].Revents, err
		}
		t.Reset(d)
	}
}
