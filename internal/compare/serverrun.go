package compare

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
)

// serverRun is the server's end of one run.
type serverRun struct {
	ctl *control
	way way
	job Job

	mu   sync.Mutex
	told bool // guarded by mu; the client has the answer to its stop
}

// finisher is a part that has something to say when its run is over: run before it
// is closed, after the meter was read.
type finisher interface{ finish() }

func (r *serverRun) do(ctx context.Context, data *net.TCPConn, src *source, device string) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	m := &meter{}
	conn, err := newStream(data, m)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, conn.abort)
	defer stop()
	e := &env{job: r.job, conn: conn, m: m, src: src, device: device, fail: func(err error) { fail(err) }}
	p, err := r.way.serve(ctx, e)
	if err != nil {
		// The client has seen it too, or will: it says abort, or nothing yet.
		conn.abort()
		if err := r.ctl.send(message{Type: msgCannot, Why: err.Error()}); err != nil {
			return err
		}
		return r.aborted()
	}
	if err := r.ctl.send(message{Type: msgReady}); err != nil {
		return errors.Join(err, p.close())
	}
	return r.measure(ctx, p, m, fail)
}

// aborted takes the client's word that it has given the run up.
func (r *serverRun) aborted() error {
	m, err := r.ctl.receive(patience)
	if err == nil && m.Type != msgAbort {
		err = fmt.Errorf("it said %q where %q was due", m.Type, msgAbort)
	}
	return err
}

// tell answers the client's stop, or says before it that the run has failed: once.
func (r *serverRun) tell(m message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told {
		return nil
	}
	r.told = true
	return r.ctl.send(m)
}

// untilSaid waits for the client's next word but that it is alive. One that was
// stopped must not keep others out.
func (r *serverRun) untilSaid() (message, error) {
	for {
		m, err := r.ctl.receive(clientSilence)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("it has said nothing for %v: %w", clientSilence, err)
		}
		if err != nil || m.Type != msgAlive {
			return m, err
		}
	}
}

// measure serves until the client says stop.
func (r *serverRun) measure(ctx context.Context, p part, m *meter, fail context.CancelCauseFunc) error {
	said, err := r.ctl.receive(patience)
	if err != nil || said.Type != msgStart {
		fail(nil)
		if err == nil && said.Type != msgAbort {
			err = fmt.Errorf("it said %q where %q was due", said.Type, msgStart)
		}
		return errors.Join(err, p.close())
	}
	m.start()
	ran := make(chan error, 1)
	if err = r.ctl.send(message{Type: msgStarted}); err == nil {
		go func() {
			err := p.run(ctx)
			if err != nil && ctx.Err() == nil {
				fail(err) // and so the client's connection ends
			}
			if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
				_ = r.tell(message{Type: msgFailed, Why: cause.Error()})
			}
			ran <- err
		}()
		said, err = r.untilSaid()
	} else {
		ran <- nil
	}
	side := m.stop()
	fail(nil)
	<-ran
	failed := context.Cause(ctx)
	if errors.Is(failed, context.Canceled) {
		failed = nil
		if f, ok := p.(finisher); ok {
			f.finish()
		}
	}
	failed = errors.Join(failed, p.close())
	if err != nil {
		return fmt.Errorf("the client left: %w", errors.Join(err, failed))
	}
	switch {
	case said.Type == msgAbort:
		return nil
	case said.Type != msgStop:
		return fmt.Errorf("it said %q where %q was due", said.Type, msgStop)
	case failed != nil:
		return r.tell(message{Type: msgFailed, Why: failed.Error()})
	}
	side.Notes = m.allNotes()
	return r.tell(message{Type: msgDone, Side: &side})
}
