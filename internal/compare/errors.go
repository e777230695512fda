package compare

import "errors"

// ErrCorrupt: a block arrived that is not the one asked for.
var ErrCorrupt = errors.New("what arrived is not what was sent")

// CannotError says that a machine cannot do it in this way, which is a result and
// no failure of the comparison.
type CannotError struct {
	Side string // "server" or "client"
	Why  string
}

func (e *CannotError) Error() string { return e.Side + ": " + e.Why }

// PeerError is what the server says that went wrong there.
type PeerError struct{ Why string }

func (e *PeerError) Error() string { return "server: " + e.Why }

// cannot makes a CannotError of what a way returns when it is set up.
func cannot(side string, err error) error {
	var c *CannotError
	if err == nil || errors.As(err, &c) {
		return err
	}
	return &CannotError{side, err.Error()}
}
