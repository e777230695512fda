package qp

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

// DeviceConfig says what to open. The zero value is good.
type DeviceConfig struct {
	// Name is that of an RDMA device, mlx5_0 or soft:127.0.0.1; empty: the choice
	// of verbs.OpenDefault.
	Name string
	// Context is a device that the caller has open, instead of Name; it stays the
	// caller's. For Dial on a kernel device it must be one of rdmacm.Devices.
	Context *verbs.Context
	Port    uint8 // 0: the first active one

	Engines int          // completion queues with a goroutine each; 0: 1
	Engine  EngineConfig // of each
	Pool    mr.PoolConfig
	Logger  *slog.Logger // nil: slog.Default()

	// OnEvent is a hook: it hears of the device's asynchronous events, after the
	// library has dealt with them. It must not block.
	OnEvent func(verbs.AsyncEvent)
}

// Device is an open device with what its connections share: a protection domain,
// a pool of registered memory, and engines.
type Device struct {
	dev     *verbs.Context
	own     bool
	port    uint8
	pd      *verbs.PD
	pool    *mr.Pool
	engines []*Engine
	next    atomic.Uint32
	log     *slog.Logger
	start   time.Time
	watch   *watcher
	onEvent func(verbs.AsyncEvent)
	down    atomic.Bool // the port has no link
	repeats bool        // see hold.go
	// Limits of the device; 0: it does not say.
	rdAtomic int
	inlines  sync.Map // of inline

	mu     sync.Mutex
	conns  map[*Conn]struct{} // guarded by mu, as all below
	byQP   map[*verbs.QP]*Conn
	opened uint64
	past   Stats // counts of connections that were closed
	closed bool

	closing sync.Mutex // held by Close
}

// Open opens a device.
func Open(cfg DeviceConfig) (_ *Device, err error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Engines == 0 {
		cfg.Engines = 1
	}
	if cfg.Engines < 0 {
		return nil, fmt.Errorf("qp: DeviceConfig.Engines is %d; it must be positive", cfg.Engines)
	}
	if cfg.Engine.Logger == nil {
		cfg.Engine.Logger = cfg.Logger
	}
	d := &Device{dev: cfg.Context, port: cfg.Port, log: cfg.Logger, start: time.Now(), conns: map[*Conn]struct{}{}, byQP: map[*verbs.QP]*Conn{}, onEvent: cfg.OnEvent}
	defer func() {
		if err != nil {
			d.free()
		}
	}()
	if d.dev == nil {
		if d.dev, d.own, err = openContext(cfg.Name); err != nil {
			return nil, fmt.Errorf("qp: %w", err)
		}
	}
	if d.port == 0 {
		if d.port, err = d.dev.ActivePort(); err != nil {
			return nil, fmt.Errorf("qp: %w", err)
		}
	}
	if d.pd, err = d.dev.AllocPD(); err != nil {
		return nil, fmt.Errorf("qp: %w", err)
	}
	if err = d.learn(); err != nil {
		return nil, err
	}
	if d.pool, err = mr.NewPool(cfg.Pool, d.pd); err != nil {
		return nil, err
	}
	for range cfg.Engines {
		e, err := NewEngine(d.dev, cfg.Engine)
		if err != nil {
			return nil, err
		}
		d.engines = append(d.engines, e)
	}
	d.watch = watchDevice(d)
	return d, nil
}

// openContext opens a device by name. The connection manager of the kernel has
// contexts of its own, and a queue pair that it connects must be made from its
// one: so that is taken, where there is a connection manager.
func openContext(name string) (_ *verbs.Context, own bool, err error) {
	var c *verbs.Context
	if name == "" {
		c, err = verbs.OpenDefault()
	} else {
		c, err = verbs.Open(name)
	}
	if err != nil || c.IsSoft() {
		return c, true, err
	}
	managed, err := rdmacm.Devices()
	if err != nil {
		return c, true, nil // Prepare works without
	}
	i := slices.IndexFunc(managed, func(m *verbs.Context) bool { return m.Name() == c.Name() })
	if i < 0 {
		return c, true, nil
	}
	_ = c.Close()
	return managed[i], false, nil
}

// Context is the open device.
func (d *Device) Context() *verbs.Context { return d.dev }

// PD is the domain of the device's connections.
func (d *Device) PD() *verbs.PD { return d.pd }

// Pool is registered memory that connections of the device can use.
func (d *Device) Pool() *mr.Pool { return d.pool }

// Port is the port in use, counted from 1.
func (d *Device) Port() uint8 { return d.port }

// now is a monotonic clock in nanoseconds, never 0.
func (d *Device) now() int64 { return int64(time.Since(d.start)) + 1 }

// engine is the one asked for, or the next of the device's.
func (d *Device) engine(e *Engine) (*Engine, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil, d.errClosed()
	case e == nil:
		return d.engines[d.next.Add(1)%uint32(len(d.engines))], nil
	case e.dev != d.dev:
		return nil, fmt.Errorf("qp: the Engine is of another open device than %s", d.dev.Name())
	}
	return e, nil
}

func (d *Device) errClosed() error {
	return fmt.Errorf("qp: device %s: %w", d.dev.Name(), verbs.ErrClosed)
}

func (d *Device) remember(c *Conn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return d.errClosed()
	}
	d.conns[c] = struct{}{}
	return nil
}

// attached says that the connection has its queue pair: events can reach it.
func (d *Device) attached(q *verbs.QP, c *Conn) {
	d.mu.Lock()
	d.byQP[q] = c
	d.opened++
	d.mu.Unlock()
}

func (d *Device) forget(c *Conn) {
	d.mu.Lock()
	delete(d.conns, c)
	if c.qp != nil && d.byQP[c.qp] == c {
		delete(d.byQP, c.qp)
		d.past.add(c.Stats())
	}
	d.mu.Unlock()
}

// Conns are the connections that were not closed yet.
func (d *Device) Conns() []*Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := make([]*Conn, 0, len(d.conns))
	for c := range d.conns {
		l = append(l, c)
	}
	return l
}

// Close frees the device: verbs.ErrInUse while connections are open, or a Buf of
// the pool is held; in the latter case it can make no connections any more, and
// Close may be called again.
func (d *Device) Close() error {
	d.closing.Lock()
	defer d.closing.Unlock()
	d.mu.Lock()
	if n := len(d.conns); n > 0 {
		d.mu.Unlock()
		return fmt.Errorf("qp: device %s: %d connections are open: %w", d.dev.Name(), n, verbs.ErrInUse)
	}
	d.closed = true
	d.mu.Unlock()
	return d.free()
}

func (d *Device) free() error {
	var errs []error
	for len(d.engines) > 0 {
		e := d.engines[len(d.engines)-1]
		if err := e.Close(); err != nil {
			return err
		}
		d.engines = d.engines[:len(d.engines)-1]
	}
	if d.pool != nil {
		if err := d.pool.Close(); err != nil {
			return err
		}
		d.pool = nil
	}
	if d.watch != nil {
		d.watch.stop()
		d.watch = nil
	}
	if d.pd != nil {
		if err := d.pd.Close(); err != nil {
			return err
		}
		d.pd = nil
	}
	if d.own && d.dev != nil {
		errs = append(errs, d.dev.Close())
		d.own = false
	}
	return errors.Join(errs...)
}
