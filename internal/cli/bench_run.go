package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/internal/perf"
	"github.com/zrdma/zrdma/internal/pingpong"
	"github.com/zrdma/zrdma/verbs"
)

// openEnd opens the device of a tool.
func openEnd(cfg *endpoint.Config, alone bool, errOut io.Writer) (*endpoint.Device, error) {
	cfg.Warn = func(format string, args ...any) { fmt.Fprintf(errOut, "warning: "+format+"\n", args...) }
	d, err := endpoint.Open(*cfg)
	if errors.Is(err, syscall.ENODEV) {
		return nil, noDevice(err)
	}
	if err != nil {
		return nil, err
	}
	if !alone && cfg.Device == "" && os.Getenv(verbs.EnvDevice) == "" && d.Soft() {
		cfg.Warn("no kernel device can be used here: this is the software device on loopback, which reaches no other machine; --device soft:ADDRESS takes an address of this one")
	}
	return d, nil
}

// mismatch gives errors about a peer that does not fit a code of their own.
func mismatch(err error) error {
	var p *perf.PeerError
	var b *perf.BusyError
	var r *perf.RefusedError
	if errors.As(err, &p) || errors.As(err, &b) || errors.As(err, &r) || pingpong.Misfit(err) {
		return coded{err, ExitMismatch}
	}
	return err
}

func (f *benchFlags) run(ctx context.Context, cases []perf.Case, out, errOut io.Writer) (err error) {
	w, err := f.openReports(out, errOut)
	if err != nil {
		return err
	}
	d, err := openEnd(&f.cfg, f.loopback, errOut)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if f.serve {
		return f.runServer(ctx, d, cases, out)
	}
	c, done, err := f.connect(ctx, d)
	if err != nil {
		if ctx.Err() != nil {
			return coded{errors.New("interrupted before the first measurement"), ExitInterrupted}
		}
		return mismatch(err)
	}
	rep := &perf.Report{Schema: perf.Schema, Start: time.Now().UTC().Truncate(time.Second), Client: c.Host(), OneHost: f.loopback, Results: []perf.Result{}}
	merr := f.measure(ctx, c, cases, rep, w, errOut)
	c.Close()
	done()
	switch {
	case merr == nil:
		rep.Ended = "complete"
	case ctx.Err() != nil:
		rep.Ended = "interrupted"
		merr = coded{errors.New("interrupted: the figures are of what was measured by then"), ExitInterrupted}
	default:
		rep.Ended, rep.Error = "failed", merr.Error()
		merr = mismatch(merr)
	}
	if werr := w.finish(rep); werr != nil {
		return coded{errors.Join(werr, merr), ExitReport}
	}
	return merr
}

// connect finds the other end: with --loopback it is here.
func (f *benchFlags) connect(ctx context.Context, d *endpoint.Device) (*perf.Client, func(), error) {
	if f.loopback {
		here, there := net.Pipe()
		s := &perf.Server{Device: d, Release: release(), MaxMemory: 1 << 40}
		served := make(chan struct{})
		go func() {
			s.ServeConn(context.WithoutCancel(ctx), there)
			close(served)
		}()
		c, err := perf.NewClient(ctx, d, here, release())
		if err != nil {
			there.Close()
		}
		return c, func() { <-served }, err
	}
	addr := net.JoinHostPort(f.host, strconv.Itoa(f.tcpPort))
	for end := time.Now().Add(time.Duration(f.retry)); ; {
		c, err := perf.Dial(ctx, d, addr, release())
		if err == nil {
			return c, func() {}, nil
		}
		var busy *perf.BusyError
		if !errors.As(err, &busy) && !errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(end) {
			return nil, nil, err
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// measure measures all cases. What was measured before an error is in rep.
func (f *benchFlags) measure(ctx context.Context, c *perf.Client, cases []perf.Case, rep *perf.Report, w *reports, errOut io.Writer) error {
	p := startProgress(errOut, c, !f.quiet)
	defer p.stop()
	for i, cs := range cases {
		res := perf.Result{Case: cs, LatencyOf: cs.LatencyOf()}
		var err error
		for k := 0; k < f.repeat && err == nil; k++ {
			p.at(fmt.Sprintf("%v  case %d of %d, sample %d of %d", cs, i+1, len(cases), k+1, f.repeat))
			if f.warmup > 0 && k == 0 {
				warm := cs
				warm.Count, warm.Duration = 0, time.Duration(f.warmup)
				if _, err = c.Run(ctx, warm); err != nil {
					break
				}
			}
			var s perf.Sample
			s, err = c.Run(ctx, cs)
			if f.loopback {
				s.ServerCPU = perf.CPU{} // the client's is of the same process
			}
			if err == nil || s.Messages > 0 {
				res.Samples = append(res.Samples, s)
			}
		}
		rep.Server = c.Server()
		if len(res.Samples) > 0 {
			rep.Results = append(rep.Results, res)
			p.hide()
			w.add(rep)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *benchFlags) runServer(ctx context.Context, d *endpoint.Device, cases []perf.Case, out io.Writer) error {
	limit, err := perf.ParseSize(f.maxMemory)
	if err != nil || limit == 0 {
		return usagef("--max-memory %s: a number of bytes, such as 1g", f.maxMemory)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(f.tcpPort)))
	if err != nil {
		return &endpoint.StepError{Step: "exchange", Cause: err, Hint: "--tcp-port takes another port, on both ends"}
	}
	if _, err := fmt.Fprintf(out, "serving on TCP port %d with %s, one client at a time\n", f.tcpPort, d.Name()); err != nil {
		l.Close()
		return coded{err, ExitReport}
	}
	s := &perf.Server{Device: d, Release: release(), Rules: f.rules(cases), MaxMemory: limit}
	s.Served = func(x perf.Session) {
		fmt.Fprintf(out, "%v: %s", x.Peer, plural(len(x.Cases), "measurement"))
		if n := len(x.Cases); n > 0 {
			fmt.Fprintf(out, ", the last %v", x.Cases[n-1])
		}
		if x.Err != nil {
			fmt.Fprintf(out, ", then: %v", x.Err)
		}
		fmt.Fprintln(out)
	}
	return s.Serve(ctx, l, f.clients)
}
