// Package doctor says what is wrong or slow for RDMA on a machine, and which
// command mends it.
//
// # Ownership
//
// Findings are plain data and belong to the caller.
//
// # Concurrency
//
// Examine has no state; call it from any goroutine.
//
// # Blocking
//
// Examine reads files, and waits Config.Watch between two readings of
// the counters; it returns when ctx is done.
//
// # Cleanup
//
// Nothing stays open.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/zrdma/zrdma/dpu"
)

// Level says how much a finding matters.
type Level string

// Levels, the worst first.
const (
	Broken Level = "broken" // RDMA does not work because of it
	Slow   Level = "slow"   // it works, below what the machine could do
	Note   Level = "note"   // worth knowing
)

// Finding is one thing that is not as it should be.
type Finding struct {
	Level   Level  `json:"level"`
	Check   string `json:"check"`   // its name, stable from release to release
	Subject string `json:"subject"` // the device, file or limit
	What    string `json:"what"`
	Mend    string `json:"mend"` // a command; what is in capitals has to be filled in
}

// Limit is a resource limit in bytes.
type Limit struct {
	Bytes     uint64
	Unlimited bool
}

// Config says what Examine looks at. The zero value is this machine.
type Config struct {
	// Root is the folder that has sys, proc and dev; "": /.
	Root string

	// Inventory is what Discover found; nil: Examine calls it with Discover.
	Inventory *dpu.Inventory

	// Discover configures that call; its Root is the one above.
	Discover dpu.Config

	// Memlock is the limit of locked memory; nil: this process's.
	Memlock func() (Limit, error)

	// Open tries a device node for reading and writing; nil: by opening it.
	Open func(path string) error

	// Watch is the time between two readings of the counters; 0: one reading, and
	// the counters that are not zero are reported as notes.
	Watch time.Duration

	// Sleep waits; nil: by a timer. It returns an error when ctx is done.
	Sleep func(ctx context.Context, d time.Duration) error
}

func (c Config) withDefaults() (Config, error) {
	if c.Watch < 0 {
		return c, fmt.Errorf("doctor: Watch is %v, and a time does not run backwards", c.Watch)
	}
	c.Discover.Root = c.Root
	if c.Root == "" {
		c.Root = "/"
	}
	if c.Memlock == nil {
		c.Memlock = memlock
	}
	if c.Open == nil {
		root := c.Root
		c.Open = func(p string) error { return openNode(root, p) }
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
	return c, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Examine runs every check and returns the findings, the worst first. No findings
// is a healthy machine. What cannot be read is not judged.
func Examine(ctx context.Context, cfg Config) ([]Finding, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.Inventory == nil {
		cfg.Discover.NoProbe = true
		if cfg.Inventory, err = dpu.Discover(ctx, cfg.Discover); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("doctor: root: %w", err)
	}
	defer root.Close()
	e := &exam{cfg: cfg, root: root, inv: cfg.Inventory}
	for _, check := range []func(){
		e.modules, e.nodes, e.lockedMemory, e.hugePages, e.ports, e.mtu, e.gids, e.congestion, e.numa, e.link, e.mode, e.iommu, e.warnings,
	} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		check()
	}
	if err := e.counters(ctx); err != nil {
		return nil, err
	}
	rank := map[Level]int{Broken: 0, Slow: 1, Note: 2}
	slices.SortStableFunc(e.found, func(a, b Finding) int { return rank[a.Level] - rank[b.Level] })
	return e.found, nil
}

// exam is one run.
type exam struct {
	cfg   Config
	root  *os.Root
	inv   *dpu.Inventory
	found []Finding
}

func (e *exam) find(l Level, check, subject, what, mend string) {
	e.found = append(e.found, Finding{l, check, subject, what, mend})
}

// rdmaNetdevs are the netdevs that carry RDMA, with the device that uses each.
func (e *exam) rdmaNetdevs() (out []pair) {
	for _, d := range e.inv.RDMA {
		for _, p := range d.Ports {
			n := p.Netdev
			if f := e.inv.Function(d.Name); n == "" && f != nil {
				n = f.Netdev.Value
			}
			if n != "" {
				out = append(out, pair{d.Name, p.Number, n})
			}
		}
	}
	return out
}

type pair struct {
	rdma   string
	port   int
	netdev string
}

var errNotRegular = errors.New("not a device node or file")
