package rdmanet

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/zrdma/zrdma/qp"
)

// Config says how connections are made. The zero value is good.
type Config struct {
	Device *qp.Device // nil: one that the package opens for all (qp.Open)

	// MessageSize is the longest message that is received, in bytes, and so what a
	// large Write is cut into at the peer; 0: 64 KiB. At most what the pool of the
	// device gives (mr.PoolConfig.Classes), of which it takes the next larger size.
	MessageSize int
	// Window is how many messages the peer may send before they are read; 0: 16. A
	// connection holds so much registered memory, and eight messages more: 1.5 MiB.
	Window int
	// DeadAfter is how long a peer may not answer before it counts as dead; 0: 5 s.
	DeadAfter time.Duration
	// Linger is how long Close waits for the peer to take what was written; 0: 5 s.
	// Then, or at once when it is negative, the connection is reset.
	Linger time.Duration

	Logger *slog.Logger // nil: the device's
}

func (c Config) withDefaults() (Config, error) {
	if c.MessageSize == 0 {
		c.MessageSize = 64 << 10
	}
	if c.Window == 0 {
		c.Window = 16
	}
	if c.DeadAfter == 0 {
		c.DeadAfter = 5 * time.Second
	}
	if c.Linger == 0 {
		c.Linger = 5 * time.Second
	}
	switch {
	case c.MessageSize < minMessage || c.MessageSize > 1<<30:
		return c, fmt.Errorf("rdmanet: Config.MessageSize is %d bytes; it must be %d to %d", c.MessageSize, minMessage, 1<<30)
	case c.Window < 2 || c.Window > 1<<14:
		return c, fmt.Errorf("rdmanet: Config.Window is %d messages; it must be 2 to %d", c.Window, 1<<14)
	case c.DeadAfter < 0:
		return c, fmt.Errorf("rdmanet: Config.DeadAfter is %v; it must be positive", c.DeadAfter)
	}
	return c, nil
}

// open is withDefaults and a device.
func (c Config) open() (Config, error) {
	c, err := c.withDefaults()
	if err != nil || c.Device != nil {
		return c, err
	}
	c.Device, err = defaultDevice()
	return c, err
}

// QP is the configuration of the queue pair below, for who makes that: New takes
// it when it is connected.
func (c Config) QP() (qp.Config, error) {
	c, err := c.withDefaults()
	if err != nil {
		return qp.Config{}, err
	}
	return qp.Config{SendDepth: sendDepth, RecvDepth: c.Window, MaxMessage: c.MessageSize, MaxSGE: 1, DeadAfter: c.DeadAfter, Logger: c.Logger}, nil
}

// sendDepth is how many messages of a connection are on their way; the credits
// of the peer are less, by default.
const sendDepth = 128

// shared is the device of all who name none. It stays open.
var shared struct {
	sync.Mutex
	d *qp.Device // guarded by the mutex
}

func defaultDevice() (*qp.Device, error) {
	shared.Lock()
	defer shared.Unlock()
	if shared.d == nil {
		d, err := qp.Open(qp.DeviceConfig{})
		if err != nil {
			return nil, err
		}
		shared.d = d
	}
	return shared.d, nil
}
