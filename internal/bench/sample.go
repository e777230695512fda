package bench

import (
	"slices"
	"time"
)

// sampleTurns is how many round trips share a look at the clock, which costs
// 2 µs on the HPET: few enough that most samples see no other process.
const sampleTurns = 16

type samples struct {
	at []time.Time
}

func (s *samples) start(turns int) time.Time {
	s.at = make([]time.Time, 0, turns/sampleTurns+2)
	return time.Now()
}

// turn notes the time at the start of every sampleTurns-th turn.
func (s *samples) turn(i int) {
	if i%sampleTurns == 0 {
		s.at = append(s.at, time.Now())
	}
}

// median is of half a round trip, in microseconds.
func (s *samples) median() float64 {
	if len(s.at) < 2 {
		return 0
	}
	var d []time.Duration
	for i := range s.at[1:] {
		d = append(d, s.at[i+1].Sub(s.at[i]))
	}
	slices.Sort(d)
	return float64(d[len(d)/2].Nanoseconds()) / 1e3 / sampleTurns / 2
}
