package link

import (
	"sync/atomic"
	"time"
)

// shift shares the work of receiving between a link's own goroutine and callers
// of Poll: while somebody polls, the goroutine dozes, so that the two do not
// compete for every packet.
type shift struct {
	polls  atomic.Uint64
	idles  atomic.Uint64
	asleep atomic.Uint64 // polls when the last poller went to sleep
	dozing atomic.Bool
	wake   chan struct{} // capacity 1
	timer  *time.Timer   // the goroutine's
	seen   uint64        // the goroutine's: polls when it last looked
}

// dozeTime is how long a packet may lie when a poller just stops.
const dozeTime = 250 * time.Microsecond

func newShift() *shift {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &shift{wake: make(chan struct{}, 1), timer: t}
}

// idle ends the goroutine's doze, the present one or the one it is about to begin.
func (s *shift) idle() {
	s.asleep.Store(s.polls.Load())
	s.idles.Add(1)
	if s.dozing.Load() {
		s.rouse()
	}
}

func (s *shift) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// doze waits a while when there were polls since it last did, and not only of
// somebody who has gone to sleep since; it tells whether. It is the goroutine's, called when there was nothing to receive; idles is of
// before it looked.
func (s *shift) doze(idles uint64) bool {
	p := s.polls.Load()
	if p == s.seen || p == s.asleep.Load() {
		s.seen = p
		return false
	}
	s.seen = p
	s.dozing.Store(true)
	if s.idles.Load() == idles {
		s.timer.Reset(dozeTime)
		select {
		case <-s.timer.C:
		case <-s.wake:
			s.timer.Stop()
		}
	}
	s.dozing.Store(false)
	if s.idles.Load() != idles {
		s.seen = s.polls.Load()
	}
	return true
}
