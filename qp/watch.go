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
					// A device that is taken away may say so only thus.
					d.log.Error("qp: no more asynchronous events of the device; all its connections end", "device", d.dev.Name(), "err", err)
					d.endAll(fmt.Errorf("%w: %w", ErrDeviceRemoved, err), func(*Conn) bool { return true })
				}
				return
			}
			d.event(e)
			if f := d.onEvent; f != nil {
				f(e)
			}
		}
	}()
	return w
}

func (w *watcher) stop() {
	w.cancel()
	<-w.done
}

// endAll ends the connections that have a queue pair and that of chooses.
func (d *Device) endAll(cause error, of func(*Conn) bool) {
	d.mu.Lock()
	l := make([]*Conn, 0, len(d.byQP))
	for _, c := range d.byQP {
		l = append(l, c)
	}
	d.mu.Unlock()
	for _, c := range l {
		if of(c) {
			c.end(cause)
		}
	}
}

// event ends what an event makes impossible.
func (d *Device) event(e verbs.AsyncEvent) {
	d.log.Debug("qp: asynchronous event", "device", d.dev.Name(), "event", e.Type)
	var c *Conn // it is about, or nil
	if e.QP != nil {
		d.mu.Lock()
		c = d.byQP[e.QP]
		d.mu.Unlock()
	}
	switch e.Type {
	case verbs.EventDeviceFatal:
		d.endAll(ErrDeviceRemoved, func(*Conn) bool { return true })
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
		if c != nil {
			c.end(fmt.Errorf("qp: %v", e.Type))
		}
	case verbs.EventQPLastWQEReached:
		// The only word of a queue pair with shared receives that it has failed, if
		// this side has not ended it.
		if c != nil && c.lastOnce.CompareAndSwap(false, true) {
			close(c.lastRecv)
			c.end(errFlushed)
		}
	case verbs.EventCQErr:
		d.endAll(errors.New("qp: the completion queue was overrun"), func(c *Conn) bool { return c.eng.cq == e.CQ })
	}
}

// removed names the errors of calls on a device that was taken away.
func removed(err error) error {
	if errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENODEV) {
		return fmt.Errorf("%w: %w", ErrDeviceRemoved, err)
	}
	return err
}
