package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// On a kernel device, rxe0 in a VM for instance, the measure is perftest on the
// same device, in the same rounds:
//
//	CGO_ENABLED=1 go build -o ../../bin/rpcbench . && cd ../.. && bin/softroce run -timeout 9m -- bin/rpcbench -perftest rxe0

// cCase is a program of perftest and the workload it is held against.
type cCase struct {
	tool, workload string
	size, iters    int
	bar            string
	// ratio of ours to perftest's number: us of half a round trip, or MiB/s.
	ratio func(r *result, c float64) float64
}

var cCases = []cCase{
	{"ib_send_lat", "64 B, one at a time", small, 2000, "<= 2", func(r *result, c float64) float64 { return us(r.mean) / (2 * c) }},
	{"ib_write_bw", "1 MiB reads, 4", block, 50, ">= 0.9", func(r *result, c float64) float64 { return r.rate / c }},
	{"ib_read_bw", "1 MiB writes, 4", block, 50, ">= 0.9", func(r *result, c float64) float64 { return r.rate / c }},
}

// besidePerftest alternates C, zrdma and gRPC. Reads of ours are WRITEs of the
// server, writes are its READs. perftest's number of a round is the mean of the
// runs before and after ours.
func besidePerftest(dev string, rounds int, length time.Duration) error {
	gid, addr, err := gidOf(dev)
	if err != nil {
		return err
	}
	_ = os.Setenv("ZRDMA_BENCH_DEVICE", dev) // for the children
	_ = os.Setenv("ZRDMA_BENCH_ADDR", addr)
	fmt.Println(machine(), dev, addr, "median of", rounds, "rounds: perftest, zrdma, gRPC-Go, perftest")
	for _, c := range cCases {
		var ours, theirs []float64
		for round := range rounds {
			before, err := c.run(dev, gid)
			if err != nil {
				return err
			}
			r, err := alone("zrdma", c.workload, length)
			if err != nil {
				return err
			}
			p, err := alone("grpc", c.workload, length)
			if err != nil {
				return err
			}
			after, err := c.run(dev, gid)
			if err != nil {
				return err
			}
			v := (before + after) / 2
			ours, theirs = append(ours, c.ratio(&r, v)), append(theirs, c.ratio(&p, v))
			fmt.Printf("round %d  %s %.2f and %.2f; zrdma %s mean %.1f us; gRPC-Go %s mean %.1f us\n", round, c.tool, before, after,
				r.text(find(c.workload)), us(r.mean), p.text(find(c.workload)), us(p.mean))
		}
		slices.Sort(ours)
		slices.Sort(theirs)
		n := len(ours)
		fmt.Printf("%s to %s: zrdma %.2f (%.2f..%.2f), bar %s; gRPC-Go over TCP %.2f (%.2f..%.2f)\n", c.workload, c.tool,
			ours[n/2], ours[0], ours[n-1], c.bar, theirs[n/2], theirs[0], theirs[n-1])
	}
	fmt.Println("load at the end, in here:", load())
	return nil
}

// alone measures a peer whose processes live no longer: they may poll.
func alone(peer, workload string, length time.Duration) (result, error) {
	p, err := newPair(peer, "")
	if err != nil {
		return result{}, err
	}
	defer p.close()
	r, err := p.measure(workload, length)
	if err != nil {
		err = fmt.Errorf("%s: %w", peer, err)
	}
	return r, err
}

func find(name string) *workload {
	return &workloads[slices.IndexFunc(workloads, func(w workload) bool { return w.name == name })]
}

// run runs the program's two ends and takes its average latency, or bandwidth.
func (c *cCase) run(dev, gid string) (float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	args := []string{"-d", dev, "-x", gid, "-s", strconv.Itoa(c.size), "-n", strconv.Itoa(c.iters), "-F"}
	var sout, cout bytes.Buffer
	server := exec.CommandContext(ctx, c.tool, args...)
	server.Stdout, server.Stderr = &sout, &sout
	if err := server.Start(); err != nil {
		return 0, err
	}
	var err error
	for range 100 { // until it listens
		time.Sleep(50 * time.Millisecond)
		cout.Reset()
		client := exec.CommandContext(ctx, c.tool, append(args, "127.0.0.1")...)
		client.Stdout, client.Stderr = &cout, &cout
		if err = client.Run(); err == nil || !strings.Contains(cout.String(), "Couldn't connect") {
			break
		}
	}
	if err != nil {
		cancel()
	}
	if serr := server.Wait(); err != nil || serr != nil {
		return 0, fmt.Errorf("%s: %v, %v\n%s%s", c.tool, err, serr, cout.String(), sout.String())
	}
	col := 3
	if c.tool == "ib_send_lat" {
		col = 5
	}
	for l := range strings.Lines(cout.String()) {
		if f := strings.Fields(l); len(f) > col && f[0] == strconv.Itoa(c.size) {
			return strconv.ParseFloat(f[col], 64)
		}
	}
	return 0, fmt.Errorf("no result in the output of %s:\n%s", c.tool, cout.String())
}

// gidOf finds the device's IPv4 address and the index of its GID.
func gidOf(dev string) (index, addr string, err error) {
	for i := range 16 {
		b, err := os.ReadFile(fmt.Sprintf("/sys/class/infiniband/%s/ports/1/gids/%d", dev, i))
		s := strings.TrimSpace(string(b))
		if err != nil || !strings.HasPrefix(s, "0000:0000:0000:0000:0000:ffff:") {
			continue
		}
		var v [4]uint8
		if _, err := fmt.Sscanf(s[30:], "%02x%02x:%02x%02x", &v[0], &v[1], &v[2], &v[3]); err == nil {
			return strconv.Itoa(i), fmt.Sprintf("%d.%d.%d.%d", v[0], v[1], v[2], v[3]), nil
		}
	}
	return "", "", fmt.Errorf("%s has no GID with an IPv4 address", dev)
}
