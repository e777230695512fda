package mr

import (
	"errors"
	"fmt"

	"github.com/zrdma/zrdma/verbs"
)

// Errors that callers branch on.
var (
	// ErrMoved: the Buf is no longer the right to its memory. It was posted,
	// released, or is the zero Buf; the *MisuseError says which.
	ErrMoved = errors.New("buffer has moved")
	// ErrExhausted is returned by Pool.TryGet when it would have to wait.
	ErrExhausted = errors.New("pool is exhausted")
	// ErrInUse and ErrClosed are those of package verbs.
	ErrInUse  = verbs.ErrInUse
	ErrClosed = verbs.ErrClosed
)

// Misuse is the way in which a Buf or a Flight was misused.
type Misuse uint8

// Values of Misuse.
const (
	ZeroBuf      Misuse = iota // the zero Buf, which no call returned with a nil error
	InFlight                   // the device owns it: it was posted and has not completed
	Released                   // it was released, or completed into another Buf
	Overlap                    // another slice of the same memory is in flight over it
	FlightEnded                // a Flight that was ended already
	OutsideRange               // bounds outside the Buf
)

var misuses = [...]string{
	"the zero Buf",
	"it was posted and the device owns it until the completion",
	"it was released, or its operation completed and made a new Buf",
	"another slice of this memory is in flight over it",
	"the flight has ended already",
	"the bounds are outside the buffer",
}

func (m Misuse) String() string {
	if int(m) < len(misuses) {
		return misuses[m]
	}
	return fmt.Sprintf("Misuse(%d)", uint8(m))
}

// MisuseError says what was done with a Buf or a Flight that its state does not
// allow. All but OutsideRange are ErrMoved.
type MisuseError struct {
	Op       string // Bytes, Release, Take
	Kind     Misuse
	Acquired string // where the buffer was acquired, when tracing is on (see SetTracing)
	Moved    string // where it was last posted or released, when tracing is on
}

func (e *MisuseError) Error() string {
	s := "mr: " + e.Op + ": " + e.Kind.String()
	if e.Acquired != "" {
		s += "\nacquired at\n" + e.Acquired
	}
	if e.Moved != "" {
		s += "\nmoved at\n" + e.Moved
	}
	return s
}

// Is makes every misuse but bad bounds an ErrMoved.
func (e *MisuseError) Is(target error) bool { return target == ErrMoved && e.Kind != OutsideRange }
