package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/zrdma/zrdma/dpu"
)

// printCards writes the cards and functions as two tables; nothing without cards.
func printCards(w io.Writer, inv *dpu.Inventory) error {
	if len(inv.Cards) == 0 {
		return printWarnings(w, inv)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CARD\tFAMILY\tMODEL\tSERIAL\tPSID\tFIRMWARE\tMODE")
	for i := range inv.Cards {
		c := &inv.Cards[i]
		fmt.Fprintf(t, "%d\t%v\t%v\t%v\t%v\t%v\t%v\n", i, c.Family, c.Model, c.Serial, c.PSID, c.Firmware, c.Mode)
	}
	fmt.Fprintln(t)
	if err := t.Flush(); err != nil {
		return err
	}
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CARD\tFUNCTION\tKIND\tRDMA\tNETDEV\tREPRESENTOR\tESWITCH\tNUMA\tDRIVER")
	for i := range inv.Cards {
		for _, f := range inv.Cards[i].Functions {
			fmt.Fprintf(t, "%d\t%s\t%v\t%s\t%s\t%s\t%s\t%s\t%s\n", i, f.Name(), f.Kind,
				dash(f.RDMA), dash(f.Netdev), dash(f.Representor), dash(f.Eswitch), dash(f.NUMA), dash(f.Driver))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nThis program runs on: %v\n", inv.Side)
	return printWarnings(w, inv)
}

func printWarnings(w io.Writer, inv *dpu.Inventory) error {
	for _, s := range inv.Warnings {
		if _, err := fmt.Fprintln(w, "warning:", s); err != nil {
			return err
		}
	}
	return nil
}

func dash[T comparable](c dpu.Claim[T]) string {
	if !c.Known() {
		return "-"
	}
	return c.String()
}

// leaf is a line of the tree with what hangs below it.
type leaf struct {
	text  string
	below []leaf
}

func (l leaf) print(w io.Writer, prefix string) {
	for i, b := range l.below {
		head, next := "├─ ", "│  "
		if i == len(l.below)-1 {
			head, next = "└─ ", "   "
		}
		fmt.Fprintln(w, prefix+head+b.text)
		b.print(w, prefix+next)
	}
}

// treeBuilder adds what proves a claim where that was asked for.
type treeBuilder struct{ evidence bool }

func printTree(w io.Writer, inv *dpu.Inventory, evidence bool) error {
	b := treeBuilder{evidence}
	root := leaf{text: strings.TrimSpace(fmt.Sprintf("this machine: %v, %s %s %s", inv.Side, inv.Arch, inv.DMI.Vendor, inv.DMI.Product))}
	prove(&b, &root, "side", inv.Side)
	for i := range inv.Cards {
		root.below = append(root.below, b.card(inv, &inv.Cards[i]))
	}
	for i := range inv.Loose {
		root.below = append(root.below, b.function(inv, &inv.Loose[i]))
	}
	fmt.Fprintln(w, root.text)
	root.print(w, "")
	return printWarnings(w, inv)
}

func prove[T comparable](b *treeBuilder, l *leaf, what string, c dpu.Claim[T]) {
	if !b.evidence {
		return
	}
	for _, e := range c.Evidence {
		l.below = append(l.below, leaf{text: fmt.Sprintf("%s %v <- %v", what, c, e)})
	}
}

func (b *treeBuilder) card(inv *dpu.Inventory, c *dpu.Card) leaf {
	l := leaf{text: fmt.Sprintf("card %v (%v), model %v, serial %v, PSID %v, firmware %v, mode %v",
		c.Family, c.Vendor, c.Model, c.Serial, c.PSID, c.Firmware, c.Mode)}
	prove(b, &l, "vendor", c.Vendor)
	prove(b, &l, "family", c.Family)
	prove(b, &l, "model", c.Model)
	prove(b, &l, "serial", c.Serial)
	prove(b, &l, "part number", c.PartNumber)
	prove(b, &l, "PSID", c.PSID)
	prove(b, &l, "firmware", c.Firmware)
	prove(b, &l, "system image GUID", c.SysImageGUID)
	prove(b, &l, "mode", c.Mode)
	for i := range c.Functions {
		l.below = append(l.below, b.function(inv, &c.Functions[i]))
	}
	return l
}

func (b *treeBuilder) function(inv *dpu.Inventory, f *dpu.Function) leaf {
	l := leaf{text: fmt.Sprintf("%s %v", f.Name(), f.Kind)}
	add := func(what, v string) {
		if v != "-" {
			l.text += ", " + what + v
		}
	}
	add("controller ", dash(f.Controller))
	add("PF ", dash(f.PFNumber))
	add("number ", dash(f.Number))
	add("RDMA ", dash(f.RDMA))
	add("netdev ", dash(f.Netdev))
	add("", dash(f.MAC))
	add("representor ", dash(f.Representor))
	add("switch ", dash(f.SwitchID))
	add("", dash(f.Eswitch))
	add("NUMA ", dash(f.NUMA))
	add("driver ", dash(f.Driver))
	prove(b, &l, "kind", f.Kind)
	prove(b, &l, "controller", f.Controller)
	prove(b, &l, "PF", f.PFNumber)
	prove(b, &l, "number", f.Number)
	prove(b, &l, "RDMA device", f.RDMA)
	prove(b, &l, "netdev", f.Netdev)
	prove(b, &l, "address", f.MAC)
	prove(b, &l, "representor", f.Representor)
	prove(b, &l, "switch", f.SwitchID)
	prove(b, &l, "eswitch", f.Eswitch)
	prove(b, &l, "NUMA node", f.NUMA)
	prove(b, &l, "driver", f.Driver)
	for _, d := range inv.RDMA {
		if f.RDMA.Known() && d.Name == f.RDMA.Value {
			l.below = append(l.below, rdmaLeaf(d))
		}
	}
	return l
}

func rdmaLeaf(d dpu.RDMADevice) leaf {
	l := leaf{text: "RDMA device " + d.Name}
	for _, p := range d.Ports {
		l.below = append(l.below, leaf{text: fmt.Sprintf("port %d %s, %s, %d GIDs", p.Number, strings.ToLower(p.State), p.LinkLayer, len(p.GIDs))})
	}
	if d.Caps != nil {
		can := []string{}
		for _, c := range d.Caps.List() {
			if c.Answer == dpu.Yes {
				can = append(can, c.Name)
			}
		}
		l.below = append(l.below, leaf{text: "can: " + strings.Join(can, ", ")})
	}
	return l
}

// printCaps writes a line for every capability and a column for every device, the
// software device last.
func (f *deviceFlags) printCaps(ctx context.Context, w io.Writer, inv *dpu.Inventory) error {
	type column struct {
		name string
		caps *dpu.Capabilities
	}
	var cols []column
	for _, d := range inv.RDMA {
		if d.Caps != nil {
			cols = append(cols, column{d.Name, d.Caps})
		}
	}
	warns := inv.Warnings
	if f.root == "" {
		soft := cmp.Or(f.soft, softDefault)
		if c, err := dpu.ProbeDevice(ctx, soft); err == nil {
			cols = append(cols, column{soft, c})
		} else {
			warns = append(warns, err.Error())
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "CAPABILITY")
	for _, c := range cols {
		fmt.Fprint(t, "\t"+c.name)
	}
	fmt.Fprintln(t)
	for i, x := range (&dpu.Capabilities{}).List() {
		fmt.Fprint(t, x.Name)
		for _, c := range cols {
			fmt.Fprintf(t, "\t%s", c.caps.List()[i].Answer)
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if f.evidence {
		for _, c := range cols {
			for _, x := range c.caps.List() {
				fmt.Fprintf(w, "%s %s: %s: %s\n", c.name, x.Name, x.Answer, x.How)
			}
		}
	}
	return printWarnings(w, &dpu.Inventory{Warnings: warns})
}

// printPairs matches inv with the other side's inventory.
func (f *deviceFlags) printPairs(w io.Writer, inv *dpu.Inventory) error {
	b, err := os.ReadFile(f.pair)
	if err != nil {
		return usagef("--pair: %w", err)
	}
	other := &dpu.Inventory{}
	if err := json.Unmarshal(b, other); err != nil {
		return usagef("--pair %s: not what devices --tree --json prints: %w", f.pair, err)
	}
	host, soc := inv, other
	if inv.Side.Known() && inv.Side.Value == dpu.OnSoC {
		host, soc = other, inv
	}
	pairs := dpu.Pair(host, soc)
	if len(pairs) == 0 {
		return fmt.Errorf("no card of the two inventories is the same for certain")
	}
	for _, p := range pairs {
		sure := ""
		if !p.Certain {
			sure = " (a hint, not a proof)"
		}
		fmt.Fprintf(w, "host %s %v = SoC %s %v%s: %v\n", cardName(p.Host), p.Host.Family, cardName(p.SoC), p.SoC.Family, sure, p.Evidence[0])
		for _, fp := range p.Functions {
			fmt.Fprintf(w, "  %s = %s: %v\n", fp.Host.Name(), fp.SoC.Name(), fp.Evidence)
		}
	}
	return nil
}

// cardName is its first function's; an inventory that others wrote may have none.
func cardName(c *dpu.Card) string {
	if len(c.Functions) == 0 {
		return "a card without functions"
	}
	return c.Functions[0].Name()
}
