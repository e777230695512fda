package link

import "time"

// Class is a kind of wait with instants of its own on a test's clock. What ends
// at the same instant there runs in no certain order, and the run is not the
// seed's any more; so packets of a virtual network arrive at instants of no class,
// and waits of two classes do not end together.
type Class int

// Classes of a device's waits. The first instant of each microsecond, Class 0, is
// left to the application.
const (
	PollWait  Class = 1 + iota // between two polls
	TimerWait                  // transport timers
	CMWait                     // connection manager timers
)

// alignStep is the distance of two classes' instants, in nanoseconds.
const alignStep = 250

// Align is the shortest wait of at least d that ends at an instant of the class.
func Align(d time.Duration, c Class) time.Duration {
	end := time.Now().UnixNano() + int64(max(d, 1)) - int64(c)*alignStep
	const period = int64(time.Microsecond)
	return max(d, 1) + time.Duration((period-end%period)%period)
}
