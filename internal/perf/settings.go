package perf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Op is what is measured.
type Op string

// Operations.
const (
	Send     Op = "send"
	Write    Op = "write"
	WriteImm Op = "write-imm"
	Read     Op = "read"
	CAS      Op = "cas"
	FetchAdd Op = "fetch-add"
	RPC      Op = "rpc"
)

// Ops are all operations.
var Ops = []Op{Send, Write, WriteImm, Read, CAS, FetchAdd, RPC}

// Atomic operations have 8 bytes.
func (o Op) Atomic() bool { return o == CAS || o == FetchAdd }

// receives says whether a message takes a receive of the peer.
func (o Op) receives() bool { return o == Send || o == WriteImm }

// Mode is what of it is asked for.
type Mode string

// Modes.
const (
	Latency   Mode = "latency"   // one message under way on a thread
	Bandwidth Mode = "bandwidth" // as many as the depth, posted one by one
	Rate      Mode = "rate"      // as many as the depth, posted in lists
)

// Modes are all modes.
var Modes = []Mode{Latency, Bandwidth, Rate}

// Wait is how completions are waited for.
type Wait string

// Ways of waiting.
const (
	Events Wait = "events" // spin for as long as that pays, then sleep
	Poll   Wait = "poll"   // spin
)

// Waits are all ways of waiting.
var Waits = []Wait{Events, Poll}

// Case is one measurement. Both ends have the same.
type Case struct {
	Op   Op   `json:"op"`
	Mode Mode `json:"mode"`
	Size int  `json:"size"` // bytes of a message; atomics: 8

	QPs     int  `json:"qps"`     // queue pairs; 0: one a thread
	Threads int  `json:"threads"` // goroutines with a completion queue each; 0: 1
	Depth   int  `json:"depth"`   // messages under way on a queue pair; 0: 128, rpc: 16, latency: 1
	Batch   int  `json:"batch"`   // messages of one post; 0: 1, rate: 16
	Signal  int  `json:"signal"`  // one completion in so many messages; 0: 100 up to 8 KiB, else 1, latency: 1
	Wait    Wait `json:"wait"`    // "": events; rpc has no other

	Bidirectional bool `json:"bidirectional,omitempty"`

	Count    int           `json:"count,omitempty"`       // messages of one direction; 0: as many as fit into Duration
	Duration time.Duration `json:"duration_ns,omitempty"` // 0: 3 s, when Count is 0
}

const (
	maxThreads = 256
	maxQPs     = 4096
	maxDepth   = 1 << 14
	maxTime    = 24 * time.Hour
)

// WithDefaults fills in what was left zero, and refuses what makes no sense.
func (c Case) WithDefaults() (Case, error) {
	orDefault := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	if c.Mode == "" {
		c.Mode = Bandwidth
	}
	if c.Wait == "" || c.Op == RPC { // package rpc waits in its own way
		c.Wait = Events
	}
	if c.Op.Atomic() {
		orDefault(&c.Size, 8)
	}
	orDefault(&c.Threads, 1)
	orDefault(&c.QPs, c.Threads)
	depth, batch, signal := 128, 1, 1
	if c.Mode == Latency {
		depth = 1
	} else if c.Size <= 8192 {
		signal = 100
	}
	if c.Op == RPC && c.Mode != Latency {
		depth = 16 // each is a goroutine, and memory of its own
	}
	if c.Mode == Rate {
		batch = 16
	}
	orDefault(&c.Depth, depth)
	orDefault(&c.Batch, min(batch, c.Depth))
	orDefault(&c.Signal, max(1, min(signal, c.Depth/2)))
	if c.Count == 0 && c.Duration == 0 {
		c.Duration = 3 * time.Second
	}
	return c, c.check()
}

func (c *Case) check() error {
	between := func(name string, v, low, high int) error {
		if v < low || v > high {
			return fmt.Errorf("%s %d: it is %d to %d", name, v, low, high)
		}
		return nil
	}
	var errs []error
	switch {
	case !slices.Contains(Ops, c.Op):
		errs = append(errs, fmt.Errorf("no operation %q: there are %s", c.Op, list(Ops)))
	case !slices.Contains(Modes, c.Mode):
		errs = append(errs, fmt.Errorf("no mode %q: there are %s", c.Mode, list(Modes)))
	case !slices.Contains(Waits, c.Wait):
		errs = append(errs, fmt.Errorf("no way of waiting %q: there are %s", c.Wait, list(Waits)))
	case c.Size < 1 || c.Size > MaxSize:
		errs = append(errs, fmt.Errorf("a message has 1 byte to %s, not %d bytes", FormatSize(MaxSize), c.Size))
	case c.Op.Atomic() && c.Size != 8:
		errs = append(errs, fmt.Errorf("%s works on 8 bytes, not %d", c.Op, c.Size))
	case c.Bidirectional && c.Mode == Latency:
		errs = append(errs, errors.New("latency has one message under way: there is nothing to be bidirectional"))
	case c.Bidirectional && c.Op == RPC:
		errs = append(errs, errors.New("rpc goes from the client to the server only"))
	case c.Mode == Latency && c.Depth != 1:
		errs = append(errs, fmt.Errorf("latency has one message under way, so a depth of 1, not %d", c.Depth))
	case c.Count < 0:
		errs = append(errs, fmt.Errorf("a count of %d", c.Count))
	case c.Duration < 0 || c.Duration > maxTime:
		errs = append(errs, fmt.Errorf("a duration of %v: at most %v", c.Duration, maxTime))
	}
	errs = append(errs, between("threads", c.Threads, 1, maxThreads), between("qps", c.QPs, c.Threads, maxQPs),
		between("depth", c.Depth, 1, maxDepth), between("batch", c.Batch, 1, c.Depth), between("signal", c.Signal, 1, c.Depth))
	return errors.Join(errs...)
}

func list[T ~string](l []T) string {
	s := make([]string, len(l))
	for i, v := range l {
		s[i] = string(v)
	}
	return strings.Join(s, ", ")
}

// String names the case in a line.
func (c Case) String() string {
	s := fmt.Sprintf("%s %s %s", c.Op, c.Mode, FormatSize(int64(c.Size)))
	if c.Bidirectional {
		s += " bidirectional"
	}
	return s
}

// LatencyOf says what the latencies of a case are.
func (c Case) LatencyOf() string {
	switch {
	case c.Op == RPC:
		return "call"
	case c.Mode == Latency && c.Op.receives():
		return "half round trip"
	}
	return "post to completion"
}

// memory is what a case takes on each end, in bytes.
func (c *Case) memory() int64 {
	if c.Op == RPC {
		return int64(c.Size) * int64(c.Depth) * int64(c.QPs)
	}
	page := int64(4096)
	room := (int64(c.Size) + page - 1) / page * page
	queues := int64(c.Depth)
	if c.Op.receives() {
		queues += max(2*int64(c.Depth), 512)
	}
	return (2*room + queues*perRequest) * int64(c.QPs)
}

// perRequest is about what a place in a queue takes, here and in the device.
const perRequest = 256

// Rules are settings that a server insists on; zero fields are free.
type Rules struct {
	Ops     []Op
	Modes   []Mode
	Sizes   []int
	QPs     int
	Threads int
	Depth   int
	Batch   int
	Wait    Wait
	// Bidirectional only.
	Bidirectional bool
}

// differ lists where a case is not what the rules ask for.
func (r *Rules) differ(c *Case) (bad []string) {
	say := func(flag string, here, there any) {
		bad = append(bad, fmt.Sprintf("%s is %v on the server and %v on the client", flag, here, there))
	}
	if len(r.Ops) > 0 && !slices.Contains(r.Ops, c.Op) {
		say("--op", list(r.Ops), c.Op)
	}
	if len(r.Modes) > 0 && !slices.Contains(r.Modes, c.Mode) {
		say("--mode", list(r.Modes), c.Mode)
	}
	if len(r.Sizes) > 0 && !slices.Contains(r.Sizes, c.Size) {
		say("--sizes", r.Sizes, c.Size)
	}
	for _, n := range []struct {
		flag        string
		here, there int
	}{{"--qps", r.QPs, c.QPs}, {"--threads", r.Threads, c.Threads}, {"--depth", r.Depth, c.Depth}, {"--batch", r.Batch, c.Batch}} {
		if n.here != 0 && n.here != n.there {
			say(n.flag, n.here, n.there)
		}
	}
	if r.Wait != "" && r.Wait != c.Wait {
		say("waiting", r.Wait, c.Wait)
	}
	if r.Bidirectional && !c.Bidirectional {
		say("--bidirectional", true, false)
	}
	return bad
}
