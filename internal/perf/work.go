package perf

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// work is a measurement on one end: goroutines on lanes, or calls.
type work struct {
	c     Case
	g     *group     // nil for RPC
	rpc   *rpcClient // nil but for RPC on the client
	began atomic.Pointer[time.Time]

	wg    sync.WaitGroup
	sinks context.Context // ends what goes on after sending
	halt  context.CancelFunc

	mu  sync.Mutex
	err error // guarded by mu: the first
}

func newWork(c Case) *work {
	w := &work{c: c}
	w.sinks, w.halt = context.WithCancel(context.Background())
	return w
}

// fail notes the first error. The ends of the sinks are none.
func (w *work) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && err != nil && (!errors.Is(err, context.Canceled) || w.sinks.Err() == nil) {
		w.err = err
	}
}

func (w *work) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *work) sent() (n int64) {
	if w.rpc != nil {
		return w.rpc.sent.Load()
	}
	if w.g != nil {
		for _, l := range w.g.lanes {
			n += l.sent.Load()
		}
	}
	return n
}

func (w *work) received() (n int64) {
	for _, l := range w.g.lanes {
		n += l.received.Load()
	}
	return n
}

// histogram merges those of the threads, after stop.
func (w *work) histogram() *hdrhistogram.Histogram {
	h := newHistogram()
	if w.rpc != nil {
		for i := range w.rpc.hists {
			if x := w.rpc.hists[i].h; x != nil {
				h.Merge(x)
			}
		}
	} else {
		for _, l := range w.g.lanes {
			h.Merge(l.hist)
		}
	}
	return h
}

// goal of each queue pair, or of each calling goroutine of n.
func (w *work) goal(soft context.Context, n int) goal {
	g := goal{stop: soft}
	if w.c.Count > 0 {
		g.count = (w.c.Count + n - 1) / n
	} else {
		g.end = time.Now().Add(w.c.Duration)
	}
	return g
}

// send is the sending end: it returns when all that was to be sent has completed,
// or with an error, of the first lane that has one. soft ends the sending, hard
// everything at once. Receiving goes on until stop.
func (w *work) send(soft, hard context.Context) error {
	hard, kill := context.WithCancelCause(hard)
	context.AfterFunc(w.sinks, func() { kill(context.Canceled) })
	if w.rpc != nil {
		return w.rpc.run(hard, w.goal(soft, w.rpc.callers(&w.c)), &w.c)
	}
	g := w.goal(soft, w.c.QPs)
	var sources sync.WaitGroup
	for _, l := range w.g.lanes {
		sources.Add(1)
		w.wg.Go(func() {
			err := w.source(hard, l, g)
			if err != nil {
				if cause := context.Cause(hard); cause != nil && errors.Is(err, context.Canceled) {
					err = cause
				}
				w.fail(err)
				kill(err) // the others need not wait for theirs
			}
			sources.Done()
			if err == nil && w.c.Bidirectional && w.c.Op.receives() {
				w.fail(l.sink(hard))
			}
		})
	}
	sources.Wait()
	return w.failed()
}

func (w *work) source(hard context.Context, l *lane, g goal) error {
	if w.c.Mode == Latency {
		return l.ping(hard, g)
	}
	return l.source(hard, g)
}

// receive is the other end of a case that goes one way.
func (w *work) receive(hard context.Context) {
	hard, kill := context.WithCancel(hard)
	context.AfterFunc(w.sinks, kill)
	for _, l := range w.g.lanes {
		w.wg.Go(func() {
			defer kill()
			switch {
			case w.c.Mode == Latency && w.c.Op.receives():
				w.fail(l.echo(hard))
			case w.c.Op.receives():
				w.fail(l.sink(hard))
			default:
				<-hard.Done() // the device does it all
			}
		})
	}
}

// stop ends everything and waits for it.
func (w *work) stop() error {
	w.halt()
	w.wg.Wait()
	return w.failed()
}

func (w *work) close() error {
	_ = w.stop()
	var err error
	if w.rpc != nil {
		err = w.rpc.close()
	}
	if w.g != nil {
		err = errors.Join(err, w.g.close())
	}
	return err
}
