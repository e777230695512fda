package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

type options struct {
	server, oob    bool
	addr, local    string
	dev, test, dir string
	port, mtu, ack int
	psn            int64
	seed, n        uint64
	min, max       uint
	depth          int
	timeout        int
	acts           [2]bool // client, server: who begins operations
	me, other      int     // 0: client, 1: server
}

// summary is the last line of output, the same as the C program's.
type summary struct {
	Peer           string  `json:"peer"`
	Side           string  `json:"side"`
	Test           string  `json:"test"`
	OK             bool    `json:"ok"`
	MTU            int     `json:"mtu"`
	Ops            uint64  `json:"ops"`
	SentBytes      uint64  `json:"sent_bytes"`
	Messages       uint64  `json:"messages"`
	ReceivedBytes  uint64  `json:"received_bytes"`
	ExpectedErrors int     `json:"expected_errors"`
	Seconds        float64 `json:"seconds"`
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("peer", flag.ContinueOnError)
	f.BoolVar(&o.server, "s", false, "be the server")
	f.StringVar(&o.addr, "c", "", "be the client of the server at this `address`")
	f.StringVar(&o.local, "a", "", "local `address`")
	f.IntVar(&o.port, "p", 18600, "`port`")
	f.StringVar(&o.test, "t", "mix", "mix, stream, inv, refuse or rnr")
	f.BoolVar(&o.oob, "oob", false, "connect by text over TCP, not by rdma_cm")
	f.StringVar(&o.dev, "d", "", "with -oob: `device`; default as OpenDefault")
	f.IntVar(&o.mtu, "m", 1024, "with -oob: path MTU in `bytes`")
	f.Int64Var(&o.psn, "psn", -1, "with -oob: first `PSN`; -1: random")
	f.Uint64Var(&o.seed, "seed", 1, "of the plan")
	f.Uint64Var(&o.n, "n", 100, "`operations` or messages of each side that acts")
	f.UintVar(&o.max, "max", 65536, "longest operation in `bytes`")
	f.UintVar(&o.min, "min", 0, "shortest operation of a mix in `bytes`")
	f.IntVar(&o.depth, "depth", 8, "operations at once")
	f.StringVar(&o.dir, "dir", "both", "who acts: both, c2s or s2c")
	f.IntVar(&o.timeout, "timeout", 60, "`seconds` for all of it")
	f.IntVar(&o.ack, "ack", 14, "acknowledgement timeout, 4.096 us * 2^`t`")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.server == (o.addr != "") {
		return o, errors.New("one of -s and -c ADDRESS is required")
	}
	if o.local == "" && (o.server || o.oob) {
		return o, errors.New("-a ADDRESS is required")
	}
	if o.depth < 1 || o.depth > 64 {
		return o, errors.New("-depth goes from 1 to 64")
	}
	switch o.dir {
	case "both":
		o.acts = [2]bool{true, true}
	case "c2s":
		o.acts = [2]bool{true, false}
	case "s2c":
		o.acts = [2]bool{false, true}
	default:
		return o, errors.New("-dir is both, c2s or s2c")
	}
	o.other = 1
	if o.server {
		o.me, o.other = 1, 0
	}
	return o, nil
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(o.timeout)*time.Second)
	s := summary{Peer: "go", Side: "client", Test: o.test}
	if o.server {
		s.Side = "server"
	}
	begin := time.Now()
	err = run(ctx, &o, &s)
	cancel()
	s.Seconds, s.OK = time.Since(begin).Seconds(), err == nil
	if err != nil {
		fmt.Fprintf(os.Stderr, "peer (Go, %s): %v\n", s.Side, err)
	}
	b, merr := json.Marshal(s)
	if merr != nil {
		panic(merr) // numbers and strings only
	}
	fmt.Println(string(b))
	if err != nil {
		os.Exit(1)
	}
}

var tests = map[string]func(context.Context, *options, *summary, connector) error{
	"mix": mix, "stream": stream, "inv": invalidate, "refuse": refuse, "rnr": rnr,
}

func run(ctx context.Context, o *options, s *summary) error {
	test, ok := tests[o.test]
	if !ok {
		return fmt.Errorf("no test %q", o.test)
	}
	c, err := newConnector(ctx, o)
	if err != nil {
		return err
	}
	if o.server {
		fmt.Println("listening")
	}
	return errors.Join(test(ctx, o, s, c), c.Close())
}
