package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/zrdma/zrdma/internal/pingpong"
)

// runLoopback has a server and a client in this process: two queue pairs of one
// device, which meet over a pipe.
func (f *pingFlags) runLoopback(ctx context.Context, d *pingpong.Device, out io.Writer) error {
	here, there := net.Pipe()
	served := make(chan pingpong.Session, 1)
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() { served <- d.ServeConn(serving, there) }()
	size := f.size[0]
	c, err := d.Connect(ctx, here, pingpong.Options{Size: size})
	if err != nil {
		<-served // what it has to say is in err
		return err
	}
	fmt.Fprintf(out, "PING on %s, both ends here, %d bytes: %v\n", d.Name(), size, c)
	s := session{pingFlags: f, c: c, size: size, out: out}
	start, cpu := time.Now(), cpuTime()
	err = s.run(ctx, f.verbose && !f.quiet)
	wall, cpu := time.Since(start), cpuTime()-cpu
	err = errors.Join(err, c.Close(), (<-served).Err) // its pipe ends with ours
	if perr := errors.Join(s.outErr, printTable(out, &s.stats, size, wall, cpu)); perr != nil {
		return coded{errors.Join(fmt.Errorf("the results could not be printed: %w", perr), err), ExitReport}
	}
	return err
}

func printTable(out io.Writer, s *pingpong.Stats, size int, wall, cpu time.Duration) error {
	us := func(d time.Duration) string { return fmt.Sprintf("%.1f us", float64(d.Nanoseconds())/1e3) }
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, r := range [][2]string{
		{"round trips", fmt.Sprintf("%d of %d", s.Received, s.Sent)},
		{"verified bytes", fmt.Sprint(2 * s.Received * size)},
		{"rtt min", us(s.Min())},
		{"rtt avg", us(s.Avg())},
		{"rtt p99", us(s.Percentile(99))},
		{"rtt max", us(s.Max())},
		{"wall time", fmt.Sprintf("%.3f s", wall.Seconds())},
		{"CPU time", fmt.Sprintf("%.3f s", cpu.Seconds())},
	} {
		fmt.Fprintf(t, "%s\t%s\n", r[0], r[1])
	}
	return t.Flush()
}

// cpuTime is what this process has used, in user and kernel mode.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
