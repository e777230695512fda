package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"
)

// process is a child that answers commands.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(args ...string) (*process, report, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, report{}, err
	}
	p := &process{cmd: exec.Command(exe, args...)}
	p.cmd.Stderr = os.Stderr
	if os.Getenv("ZRDMA_BENCH_POLL") != "" && slices.Contains(args, "zrdma") {
		p.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, report{}, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, report{}, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, report{}, err
	}
	r, err := p.answer() // that it is ready
	if err != nil {
		p.stop()
		return nil, r, fmt.Errorf("%v: %w", args, err)
	}
	return p, r, nil
}

func (p *process) answer() (r report, err error) {
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return r, fmt.Errorf("the process ended: %w", err)
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return r, err
	}
	if r.Err != "" {
		err = errors.New(r.Err)
	}
	return r, err
}

func (p *process) ask(c command) (report, error) {
	if _, err := p.in.Write(encode(c)); err != nil {
		return report{}, err
	}
	return p.answer()
}

// stop ends the process, which ends by itself when its input does.
func (p *process) stop() {
	_ = p.in.Close()
	late := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait()
	late.Stop()
}

// pair is a server and its client.
type pair struct {
	name           string
	server, client *process
}

func newPair(name, profile string) (*pair, error) {
	if peerNames[name] == "" {
		return nil, fmt.Errorf("no such peer as %q", name)
	}
	flags := func(role string) []string {
		a := []string{"-role", role, "-peer", name}
		if profile != "" && name == "zrdma" {
			a = append(a, "-cpuprofile", profile+"-"+role)
		}
		return a
	}
	p := &pair{name: name}
	var r report
	var err error
	if p.server, r, err = start(flags("server")...); err != nil {
		return nil, err
	}
	if p.client, _, err = start(append(flags("client"), "-addr", r.Addr)...); err != nil {
		p.server.stop()
		return nil, err
	}
	return p, nil
}

func (p *pair) close() {
	p.client.stop()
	p.server.stop()
}

func (p *pair) measure(workload string, length time.Duration) (result, error) {
	if _, err := p.client.ask(command{Run: workload, Length: length / 5}); err != nil { // warm
		return result{}, err
	}
	var before, after [2]report
	ends := [2]*process{p.client, p.server}
	for i, e := range ends {
		var err error
		if before[i], err = e.ask(command{}); err != nil {
			return result{}, err
		}
	}
	run, err := p.client.ask(command{Run: workload, Length: length})
	if err != nil {
		return result{}, err
	}
	for i, e := range ends {
		if after[i], err = e.ask(command{}); err != nil {
			return result{}, err
		}
	}
	n := float64(run.Ops)
	var packets, calls uint64
	for i := range ends {
		packets += after[i].Packets - before[i].Packets
		calls += after[i].Sends - before[i].Sends + after[i].Receives - before[i].Receives
	}
	return result{
		packets: float64(packets) / n, calls: float64(calls) / n,
		rate: n / run.Elapsed.Seconds(),
		cpu:  (after[0].CPU - before[0].CPU + after[1].CPU - before[1].CPU).Seconds() / n,
		p50:  run.P50, p99: run.P99, mean: run.Mean,
		client: float64(after[0].Mallocs-before[0].Mallocs) / n,
		server: float64(after[1].Mallocs-before[1].Mallocs) / n,
	}, nil
}
