package compare

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// goneError: the server is not there any more.
type goneError struct{ cause error }

func (e *goneError) Error() string { return e.cause.Error() }
func (e *goneError) Unwrap() error { return e.cause }

func gone(err error) error {
	var no *CannotError
	var peer *PeerError
	if err == nil || errors.As(err, &no) || errors.As(err, &peer) {
		return err
	}
	return &goneError{err}
}

var errServerFailed = errors.New("the server's end failed")

// slowMaking is the least rate, in bytes a second, at which a server makes blocks.
const slowMaking = 20 << 20

// run does one run of a way.
func (c *client) run(ctx context.Context, name string, job Job, round int) (*RunResult, error) {
	w, _ := findWay(name)
	stop := context.AfterFunc(ctx, func() { _ = c.ctl.c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.ctl.send(message{Type: msgRun, Way: name, Job: &job}); err != nil {
		return nil, gone(err)
	}
	// Making the blocks, and writing them to a file, may take a while.
	m, err := c.ctl.want(time.Minute+time.Duration(job.Data/slowMaking)*time.Second, msgGo)
	if err != nil {
		return nil, gone(err)
	}
	rec, err := newRecorder(job, m.Sums)
	if err != nil {
		return nil, gone(err)
	}
	data := preamble{kind: forData, version: protocol}
	copy(data.token[:], m.Token)
	conn, err := c.connect(ctx, data)
	if err != nil {
		return nil, gone(err)
	}
	defer conn.Close()
	meter := &meter{}
	s, err := newStream(conn, meter)
	if err != nil {
		return nil, gone(err)
	}
	run, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopData := context.AfterFunc(run, s.abort)
	defer stopData()
	e := &env{job: job, conn: s, m: meter, rec: rec, device: c.cfg.Device, fail: func(err error) { cancel(err) }}
	p, err := w.fetch(run, e)
	if err != nil {
		return nil, c.abort(s, err)
	}
	if _, err := c.ctl.want(patience, msgReady); err != nil {
		s.abort()
		_ = c.ctl.send(message{Type: msgAbort})
		return nil, gone(errors.Join(err, p.close()))
	}
	return c.measure(run, cancel, p, e, name, round)
}

// abort gives a run up whose end here could not be set up.
func (c *client) abort(s *stream, err error) error {
	s.abort()
	if e := c.ctl.send(message{Type: msgAbort}); e != nil {
		return gone(e)
	}
	// What the server has to say is the better reason, when it could not either.
	var no *CannotError
	if _, e := c.ctl.want(patience, msgReady); errors.As(e, &no) {
		return no
	} else if e != nil {
		return gone(e)
	}
	return cannot("client", err)
}

// measure runs a way that is set up at both ends.
func (c *client) measure(ctx context.Context, cancel context.CancelCauseFunc, p part, e *env, name string, round int) (*RunResult, error) {
	if err := c.ctl.send(message{Type: msgStart}); err != nil {
		return nil, gone(errors.Join(err, p.close()))
	}
	if _, err := c.ctl.want(patience, msgStarted); err != nil {
		return nil, gone(errors.Join(err, p.close()))
	}
	// The server says nothing while it serves, unless it fails or leaves.
	left := make(chan error, 1)
	watched := make(chan struct{})
	_ = c.ctl.c.SetReadDeadline(time.Time{})
	go func() {
		defer close(watched)
		if _, err := c.ctl.in.Peek(1); err == nil {
			cancel(errServerFailed)
		} else if ctx.Err() == nil {
			err = fmt.Errorf("the server is gone: %w", err)
			left <- err
			cancel(err)
		}
	}()
	quiet := make(chan struct{})
	go func() {
		defer close(quiet)
		c.progress(ctx, cancel, e, name, round)
	}()
	e.m.start()
	begin := time.Now()
	err := p.run(ctx)
	took := time.Since(begin)
	side := e.m.stop()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	// Wakes the watcher, whose read finds nothing.
	cancel(nil)
	_ = c.ctl.c.SetReadDeadline(time.Unix(1, 0))
	<-watched
	<-quiet
	select {
	case err := <-left:
		return nil, &goneError{errors.Join(err, p.close())}
	default:
	}
	if f, ok := p.(finisher); ok && err == nil {
		before := e.m.copied.Load()
		f.finish()
		side.Copied += e.m.copied.Load() - before
	}
	done, told := c.finish(p)
	if errors.Is(err, errServerFailed) && told != nil {
		return nil, told
	}
	if err != nil {
		// The server's own reason, when it has one, beside what was seen here.
		return nil, errors.Join(err, told)
	}
	if told != nil {
		return nil, told
	}
	side.Notes = e.m.allNotes()
	return &RunResult{Seconds: took.Seconds(), Bytes: e.rec.moved.Load(), Blocks: e.rec.h.n, Verify: e.rec.verify.Seconds(),
		Latency: e.rec.h.latency(), Sender: *done.Side, Receiver: side}, nil
}

// finish says stop, takes the server's account, and closes this end.
func (c *client) finish(p part) (message, error) {
	err := c.ctl.send(message{Type: msgStop})
	var m message
	if err == nil {
		// Closing a device may take its time.
		m, err = c.ctl.want(time.Minute, msgDone)
	}
	if err == nil && m.Side == nil {
		err = errors.New("the server gave no account of the run")
	}
	return m, errors.Join(gone(err), p.close())
}

// progress tells how far a run is, and gives up one in which nothing comes.
func (c *client) progress(ctx context.Context, cancel context.CancelCauseFunc, e *env, name string, round int) {
	begin := time.Now()
	last, since, told := int64(0), begin, begin
	for tick := time.NewTicker(progressEvery); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case now := <-tick.C:
			n := e.rec.moved.Load()
			if n != last {
				last, since = n, now
			} else if now.Sub(since) > silence {
				cancel(fmt.Errorf("no block came for %v: is the network, or the device, gone?", silence))
				return
			}
			if now.Sub(told) > aliveEvery {
				told = now
				_ = c.ctl.send(message{Type: msgAlive}) // who reads from it sees that the server is gone
			}
			c.cfg.OnEvent(Event{Way: name, Round: round, Moved: n, Total: e.job.Blocks() * int64(e.job.Block), Took: now.Sub(begin)})
		}
	}
}
