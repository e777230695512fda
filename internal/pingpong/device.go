package pingpong

import (
	"errors"
	"fmt"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/verbs"
)

// MaxSize is the longest message, for a server must not give all its memory to
// whoever asks.
const MaxSize = 64 << 20

// Config of an end. The zero value but for GIDIndex is the default.
type Config struct {
	endpoint.Config
	Poll bool // spin instead of sleeping
}

// Device is an open device with the port to use. Several sessions may share it.
type Device struct {
	*endpoint.Device
	poll bool
}

// New makes a device of an open one, which Close closes.
func New(e *endpoint.Device, poll bool) *Device { return &Device{e, poll} }

// Open opens the device and looks whether the port works.
func Open(cfg Config) (*Device, error) {
	e, err := endpoint.Open(cfg.Config)
	if err != nil {
		return nil, err
	}
	return New(e, cfg.Poll), nil
}

// Transport is how messages go.
type Transport string

// Transports.
const (
	RC Transport = "rc" // a reliable connection: nothing is lost while it lives
	UD Transport = "ud" // datagrams: each may be lost, and has at most the MTU
)

// Options of a session.
type Options struct {
	Size      int
	Transport Transport // "": RC
	MTU       verbs.MTU // at most; 0: what both ports have
	Hasty     bool      // give up after a fifth of the usual time
}

// check refuses what the device cannot do.
func (d *Device) check(o *Options) error {
	limit := MaxSize
	switch o.Transport {
	case "":
		o.Transport = RC
	case RC:
	case UD:
		limit = 128 << d.Attr().ActiveMTU
	default:
		return endpoint.Step("exchange", fmt.Errorf("no transport %q: there are rc and ud", o.Transport))
	}
	if o.MTU == 0 || o.MTU > d.Attr().ActiveMTU {
		o.MTU = d.Attr().ActiveMTU
	}
	err := d.CheckSize(o.Size, limit)
	if err != nil && o.Transport == UD {
		err = errors.Join(err, errors.New("a datagram is not longer than the port's MTU"))
	}
	return endpoint.Step("size", err)
}

func (o *Options) link() endpoint.Link {
	l := endpoint.Patient
	if o.Hasty {
		l.AckTimeout, l.Retries = 14, 3
	}
	return l
}
