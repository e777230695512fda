package hub

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"time"
)

// Faults is what one direction of one link does to frames. The zero value
// delivers every frame at once and in order. Probabilities are in [0, 1].
type Faults struct {
	Loss      float64       // probability that a frame is dropped
	Duplicate float64       // probability that a frame arrives twice
	Reorder   float64       // probability that a frame is held back until the next one passed it
	Delay     time.Duration // added to every frame
	Jitter    time.Duration // added on top, uniform in [0, Jitter]; it may reorder
	Down      bool          // nothing passes: one direction of a partition
	// Match limits all of this to some frames, others pass untouched. Nil: all
	// frames. RoCE spares ARP and neighbour discovery.
	Match func(frame []byte) bool
}

func (f Faults) check() error {
	for _, p := range []float64{f.Loss, f.Duplicate, f.Reorder} {
		if !(p >= 0 && p <= 1) {
			return errors.New("hub: a probability is not in [0, 1]")
		}
	}
	if f.Delay < 0 || f.Jitter < 0 {
		return errors.New("hub: a delay is negative")
	}
	return nil
}

// verdict is what happens to one frame.
type verdict struct {
	copies []time.Duration // one delay for each copy that is delivered
	hold   bool            // wait for the next frame to pass
}

// decide draws the same number of values for every frame, so that one fault's
// setting does not shift another's dice.
func (f *Faults) decide(rng *rand.Rand, frame []byte) verdict {
	loss, dup, reorder := rng.Float64(), rng.Float64(), rng.Float64()
	jitter, jitter2 := rng.Float64(), rng.Float64()
	if f.Match != nil && !f.Match(frame) {
		return verdict{copies: []time.Duration{0}}
	}
	if f.Down || loss < f.Loss {
		return verdict{}
	}
	v := verdict{copies: []time.Duration{f.Delay + time.Duration(jitter*float64(f.Jitter))}}
	if dup < f.Duplicate {
		v.copies = append(v.copies, f.Delay+time.Duration(jitter2*float64(f.Jitter)))
	}
	v.hold = reorder < f.Reorder
	return v
}

// RoCE matches RoCEv2: UDP to port 4791 over IPv4 or IPv6.
func RoCE(frame []byte) bool {
	if len(frame) < 14 {
		return false
	}
	ip := frame[14:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		if len(ip) < 20 || ip[9] != 17 {
			return false
		}
		ip = ip[min(int(ip[0]&15)*4, len(ip)):]
	case 0x86dd:
		if len(ip) < 40 || ip[6] != 17 {
			return false
		}
		ip = ip[40:]
	default:
		return false
	}
	return len(ip) >= 4 && binary.BigEndian.Uint16(ip[2:]) == 4791
}
