package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/zrdma/zrdma/test/softroce"
)

var errTimeout = errors.New("the time was up (-timeout)")

func runCommand(ctx context.Context, args []string) int {
	r, argv, err := parseRun(args)
	if err != nil {
		return usageCode(err)
	}
	phases := []phase{}
	if r.script == "" {
		phases = append(phases, phase{all: argv})
	} else if phases, err = readScript(r.script, r.cfg.Hosts); err != nil {
		return fail(err)
	}
	r.cfg.Log = os.Stderr
	c, err := softroce.Start(ctx, r.cfg)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause // not the console of a VM that we stopped ourselves
		}
		fail(err)
		return exitCode(err)
	}
	defer c.Close() // for a panic; a second Close is nil
	if r.times {
		sayBoot(c)
	}
	err = r.runPhases(ctx, c, phases)
	code := exitCode(err)
	if err != nil {
		fmt.Fprintln(os.Stderr, "softroce:", trimName(err))
	}
	// Whatever the command did, what was asked for afterwards is done.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := errors.Join(r.finish(after, c), c.Close()); err != nil {
		fmt.Fprintln(os.Stderr, "softroce:", trimName(err))
		if code == 0 {
			code = exitFail
		}
	}
	return code
}

func sayBoot(c *softroce.Cluster) {
	for i := range c.Len() {
		b := c.Host(i).Boot()
		fmt.Fprintf(os.Stderr, "softroce: %s: kernel %s, %s, up in %.1f s (guest time %.1f s:", c.Host(i).Name(), c.Host(i).Kernel(), b.Accel, b.Wall.Seconds(), b.Guest.Seconds())
		for _, s := range b.Steps {
			fmt.Fprintf(os.Stderr, " %s %.1f", s.Name, s.At.Seconds())
		}
		fmt.Fprintln(os.Stderr, ")")
	}
}

// runPhases runs one phase after another and stops at the first that fails.
func (r *runFlags) runPhases(ctx context.Context, c *softroce.Cluster, phases []phase) error {
	if r.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.timeout, errTimeout)
		defer cancel()
	}
	for _, p := range phases {
		if err := r.runPhase(ctx, c, p); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return err
		}
	}
	return nil
}

// runPhase runs on all hosts at once. The first failure ends the others: a
// server must not wait for a client that is gone.
func (r *runFlags) runPhase(ctx context.Context, c *softroce.Cluster, p phase) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var out, errOut sync.Mutex
	for i := range c.Len() {
		argv := p.argv(i)
		if argv == nil {
			continue
		}
		cmd := c.Host(i).Command(ctx, argv...)
		cmd.Memlock, cmd.UID, cmd.GID = r.memlock, uint32(r.uid), uint32(r.uid)
		if r.stdin {
			cmd.Stdin = os.Stdin
		}
		cmd.Stdout, cmd.Stderr = io.Writer(os.Stdout), io.Writer(os.Stderr)
		if c.Len() > 1 {
			prefix := c.Host(i).Name() + "| "
			o, e := &prefixer{mu: &out, w: os.Stdout, prefix: prefix}, &prefixer{mu: &errOut, w: os.Stderr, prefix: prefix}
			defer o.flush()
			defer e.flush()
			cmd.Stdout, cmd.Stderr = o, e
		}
		wg.Go(func() {
			if err := cmd.Run(); err != nil {
				cancel(err) // the first one counts
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// finish copies files out, writes the kernel logs and looks for complaints.
func (r *runFlags) finish(ctx context.Context, c *softroce.Cluster) error {
	var errs []error
	for _, o := range r.outs {
		for i := range c.Len() {
			if o.host < 0 || o.host == i {
				path := strings.ReplaceAll(o.path, "*", strconv.Itoa(i))
				errs = append(errs, c.Host(i).CopyOut(ctx, o.guest, path))
			}
		}
	}
	errs = append(errs, r.writeDmesg(ctx, c))
	for i := range c.Len() {
		warnings, err := c.Host(i).Warnings(ctx)
		errs = append(errs, err)
		for _, w := range warnings {
			fmt.Fprintf(os.Stderr, "softroce: %s: kernel: %s\n", c.Host(i).Name(), w)
		}
		if len(warnings) > 0 && r.failOnWarn {
			errs = append(errs, fmt.Errorf("%s: the kernel complained %d times (-fail-on-warn)", c.Host(i).Name(), len(warnings)))
		}
	}
	return errors.Join(errs...)
}

func (r *runFlags) writeDmesg(ctx context.Context, c *softroce.Cluster) error {
	if r.dmesg == "" {
		return nil
	}
	var all strings.Builder
	var errs []error
	for i := range c.Len() {
		text, err := c.Host(i).Dmesg(ctx)
		errs = append(errs, err)
		if c.Len() > 1 {
			fmt.Fprintf(&all, "== %s\n", c.Host(i).Name())
		}
		all.WriteString(text)
	}
	if r.dmesg == "-" {
		_, err := io.WriteString(os.Stderr, all.String())
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, os.WriteFile(r.dmesg, []byte(all.String()), 0o644))...)
}
