//go:build linux

// Command bench measures package verbs beside perftest, in one VM: C, Go, C,
// Go, ... on the same rxe device. It writes the raw numbers and a table of
// ratios to bench/results.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

func main() {
	var o options
	flag.BoolVar(&o.inside, "inside", false, "measure on this machine's device, with `zrdma-verbsbench` beside this program; what the VM runs")
	flag.IntVar(&o.pairs, "pairs", 5, "quiet rounds of a measurement")
	flag.StringVar(&o.dev, "d", "rxe0", "device")
	flag.StringVar(&o.only, "only", "", "measure only what contains this `text`")
	flag.BoolVar(&o.waits, "waits", false, "compare the ways of waiting instead")
	flag.DurationVar(&o.limit, "limit", 12*time.Minute, "stop after; what was measured by then is kept")
	flag.StringVar(&o.load, "load", "", "load average of the host, for the record")
	results := flag.String("o", "bench/results", "`folder` for the results; empty: only print")
	flag.Parse()
	var err error
	if o.inside {
		err = measure(o)
	} else {
		err = outside(o, *results)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	inside, waits bool
	pairs         int
	dev           string
	only          string
	load          string
	limit         time.Duration
}

// outside builds the programs and runs the inside part in a VM.
func outside(o options, results string) error {
	dir, err := os.MkdirTemp("", "zrdma-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, p := range []string{"./bench", "./cmd/zrdma-verbsbench", "./test/softroce/cmd/softroce"} {
		c := exec.Command("go", "build", "-o", dir+"/", p)
		if filepath.Base(p) == "softroce" {
			c.Env = append(os.Environ(), "CGO_ENABLED=0")
		}
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", p, err, out)
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	args := []string{"run", "-timeout", o.limit.String(), "--", filepath.Join(dir, "bench"), "-inside", "-d", o.dev,
		"-pairs", fmt.Sprint(o.pairs), "-only", o.only, "-load", string(bytes.TrimSpace(load))}
	if o.waits {
		args = append(args, "-waits")
	}
	c := exec.Command(filepath.Join(dir, "softroce"), args...)
	var keep bytes.Buffer
	c.Stdout, c.Stderr = io.MultiWriter(os.Stdout, &keep), os.Stderr
	start := time.Now()
	runErr := c.Run() // what was measured before an error is kept
	load, _ = os.ReadFile("/proc/loadavg")
	fmt.Fprintf(&keep, "\nhost load average at the end: %swall time: %.0f s\n", load, time.Since(start).Seconds())
	if results == "" {
		return runErr
	}
	name := time.Now().UTC().Format("2006-01-02") + "-vm"
	if o.waits {
		name += "-waits"
	}
	name = filepath.Join(results, name+".txt")
	fmt.Fprintln(os.Stderr, "bench: wrote", name)
	return errors.Join(runErr, os.WriteFile(name, keep.Bytes(), 0o644))
}
