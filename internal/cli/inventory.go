package cli

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/verbs"
)

type deviceFlags struct {
	tree, caps, asJSON, evidence bool
	mstconfig                    []string
	pair, root                   string

	soft string // the software device of --caps; "": softDefault
}

const softDefault = "soft:127.0.0.1"

func (f *deviceFlags) run(ctx context.Context, w io.Writer) error {
	cfg, err := f.config()
	if err != nil {
		return err
	}
	inv, err := dpu.Discover(ctx, cfg)
	if err != nil {
		return err
	}
	switch {
	case f.pair != "":
		return f.printPairs(w, inv)
	case f.tree && f.asJSON:
		return printJSON(w, inv)
	case f.tree:
		return printTree(w, inv, f.evidence)
	case f.caps && !f.asJSON:
		return f.printCaps(ctx, w, inv)
	}
	rows, err := f.rows(ctx, inv)
	if err != nil {
		return err
	}
	if f.asJSON {
		return printJSON(w, rows)
	}
	if err := printDevices(w, rows); err != nil {
		return err
	}
	return printCards(w, inv)
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// config reads the files that the flags name. Devices are probed only for what
// shows it.
func (f *deviceFlags) config() (dpu.Config, error) {
	cfg := dpu.Config{Root: f.root, NoProbe: !f.caps && !f.asJSON && !f.tree, Mstconfig: map[string]string{}}
	for _, m := range f.mstconfig {
		pci, file, ok := strings.Cut(m, "=")
		if !ok {
			return cfg, usagef("--mstconfig %q: PCI=FILE is needed, as in 0000:03:00.0=mst.txt", m)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return cfg, usagef("--mstconfig: %w", err)
		}
		cfg.Mstconfig[pci] = string(b)
	}
	return cfg, nil
}

// rows are the devices that verbs knows, with what the inventory knows of each.
func (f *deviceFlags) rows(ctx context.Context, inv *dpu.Inventory) ([]deviceRow, error) {
	rows := []deviceRow{}
	if f.root != "" {
		return rows, nil
	}
	devs, err := verbs.Devices()
	if err != nil {
		return nil, err
	}
	for _, d := range devs {
		r := look(d)
		enrich(&r, inv)
		if f.asJSON && r.Caps == nil && r.Error == "" {
			if c, err := dpu.ProbeDevice(ctx, d.Name()); err == nil {
				r.Caps = capAnswers(c)
			}
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func capAnswers(c *dpu.Capabilities) map[string]dpu.Answer {
	m := map[string]dpu.Answer{}
	for _, x := range c.List() {
		m[x.Name] = x.Answer
	}
	return m
}

func enrich(r *deviceRow, inv *dpu.Inventory) {
	for i := range inv.Cards {
		for _, fn := range inv.Cards[i].Functions {
			if fn.RDMA.Known() && fn.RDMA.Value == r.Name {
				r.Family, r.Mode = inv.Cards[i].Family.Value, string(inv.Cards[i].Mode.Value)
			}
		}
	}
	if fn := inv.Function(r.Name); fn != nil {
		r.Kind, r.PCI, r.Driver = string(fn.Kind.Value), fn.PCI, fn.Driver.Value
	}
	for _, d := range inv.RDMA {
		if d.Name == r.Name && d.Caps != nil {
			r.Caps = capAnswers(d.Caps)
		}
	}
}
