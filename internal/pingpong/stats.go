package pingpong

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// maxSamples bounds the memory of a session without end; beyond it the samples
// are a random choice of all.
const maxSamples = 1 << 18

// Stats are the round trips of a session.
type Stats struct {
	Sent, Received   int
	min, max         time.Duration
	sum, sumOfSquare float64 // of seconds
	samples          []time.Duration
}

// Add counts a message that came back.
func (s *Stats) Add(rtt time.Duration) {
	s.Sent++
	s.Received++
	if s.Received == 1 || rtt < s.min {
		s.min = rtt
	}
	s.max = max(s.max, rtt)
	s.sum += rtt.Seconds()
	s.sumOfSquare += rtt.Seconds() * rtt.Seconds()
	if len(s.samples) < maxSamples {
		s.samples = append(s.samples, rtt)
	} else if i := rand.IntN(s.Received); i < maxSamples {
		s.samples[i] = rtt
	}
}

// Lose counts a message that did not.
func (s *Stats) Lose() { s.Sent++ }

// Loss is the share of messages that did not come back, in percent.
func (s *Stats) Loss() float64 {
	if s.Sent == 0 {
		return 0
	}
	return 100 * float64(s.Sent-s.Received) / float64(s.Sent)
}

// Min is the shortest round trip.
func (s *Stats) Min() time.Duration { return s.min }

// Max is the longest round trip.
func (s *Stats) Max() time.Duration { return s.max }

// Avg is the mean round trip.
func (s *Stats) Avg() time.Duration {
	if s.Received == 0 {
		return 0
	}
	return time.Duration(s.sum / float64(s.Received) * 1e9)
}

// StdDev is the standard deviation.
func (s *Stats) StdDev() time.Duration {
	if s.Received == 0 {
		return 0
	}
	n := float64(s.Received)
	return time.Duration(math.Sqrt(max(0, s.sumOfSquare/n-(s.sum/n)*(s.sum/n))) * 1e9)
}

// Percentile is the round trip that p percent of all do not exceed.
func (s *Stats) Percentile(p float64) time.Duration {
	if len(s.samples) == 0 {
		return 0
	}
	l := slices.Sorted(slices.Values(s.samples))
	i := int(math.Ceil(p/100*float64(len(l)))) - 1
	return l[min(max(i, 0), len(l)-1)]
}

// String is the summary that ping(8) prints.
func (s *Stats) String() string {
	out := fmt.Sprintf("%d sent, %d received, %.4g%% lost", s.Sent, s.Received, s.Loss())
	if s.Received > 0 {
		out += fmt.Sprintf("\nrtt min/avg/max/mdev = %s/%s/%s/%s us", us(s.min), us(s.Avg()), us(s.max), us(s.StdDev()))
	}
	return out
}

func us(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Nanoseconds())/1e3) }
