package qp

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/zrdma/zrdma/verbs"
)

// Errors of the device that end connections.
var (
	// ErrPortDown: the port has no link any more.
	ErrPortDown = fmt.Errorf("the port is down: %w", syscall.ENETDOWN)
	// ErrDeviceRemoved: the device failed, or was taken away.
	ErrDeviceRemoved = fmt.Errorf("the device is gone: %w", syscall.ENODEV)
)

// watcher reads the asynchronous events of a device.
type watcher struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func watchDevice(d *Device) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for {
			e, err := d.dev.GetAsyncEvent(ctx)
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, verbs.ErrClosed) {
					d.log.Warn("qp: no more asynchronous events of the device", "device", d.dev.Name(), "err", err)
				}
				return
			}
			d.event(e)
		}
	}()
	return w
}

func (w *watcher) stop() {
	w.cancel()
	<-w.done
}

// event ends what an event makes impossible.
func (d *Device) event(e verbs.AsyncEvent) {
	d.log.Debug("qp: asynchronous event", "device", d.dev.Name(), "event", e.Type)
	all := func(cause error, of func(*Conn) bool) {
		for _, c := range d.Conns() {
			if c.qp != nil && of(c) {
				c.end(cause)
			}
		}
	}
	switch e.Type {
	case verbs.EventDeviceFatal:
		all(ErrDeviceRemoved, func(*Conn) bool { return true })
	case verbs.EventPortErr:
		// The device tries again by itself: a link that comes back in time loses
		// nothing. DeadAfter ends what it does not.
		if e.Port == d.port {
			d.down.Store(true)
			d.log.Warn("qp: port is down", "device", d.dev.Name(), "port", d.port)
		}
	case verbs.EventPortActive:
		if e.Port == d.port {
			d.down.Store(false)
		}
	case verbs.EventQPFatal, verbs.EventQPReqErr, verbs.EventQPAccessErr:
		all(fmt.Errorf("qp: %v", e.Type), func(c *Conn) bool { return c.qp == e.QP })
	case verbs.EventCQErr:
		all(errors.New("qp: the completion queue was overrun"), func(c *Conn) bool { return c.eng.cq == e.CQ })
	}
}
