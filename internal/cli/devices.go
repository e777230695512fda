package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/verbs"
)

// deviceRow is a device as --json prints it. The names are kept from release to
// release.
type deviceRow struct {
	Name      string    `json:"name"`
	NodeGUID  string    `json:"node_guid"`
	Transport string    `json:"transport"`
	Ports     []portRow `json:"ports"`
	Error     string    `json:"error,omitempty"` // why the device cannot be looked at

	// Left out where nothing proves them.
	Kind   string                `json:"kind,omitempty"`
	PCI    string                `json:"pci,omitempty"`
	Driver string                `json:"driver,omitempty"`
	Family string                `json:"family,omitempty"`
	Mode   string                `json:"mode,omitempty"`
	Caps   map[string]dpu.Answer `json:"capabilities,omitempty"`
}

type portRow struct {
	Port      uint8    `json:"port"`
	State     string   `json:"state"`
	ActiveMTU int      `json:"active_mtu"`
	LinkLayer string   `json:"link_layer"`
	GIDs      []gidRow `json:"gids"`
}

type gidRow struct {
	Index  uint32 `json:"index"`
	GID    string `json:"gid"`
	Type   string `json:"type"`
	Netdev string `json:"netdev,omitempty"`
}

func devicesCommand() *cobra.Command {
	f := &deviceFlags{}
	c := &cobra.Command{
		Use:   "devices",
		Short: "List the RDMA devices and the cards of this machine",
		Long: `Lists the RDMA devices of this machine, their ports and GIDs, and the cards and
functions that they are on. What nothing proves is "unknown"; --evidence says
what proves the rest. The mode of a BlueField is in the text of mstconfig, which
is not run from here: hand its output in with --mstconfig.
` + exitCodes,
		Example: `  zrdma devices --tree --evidence
  mstconfig -d 0000:03:00.0 -e query > mst.txt && zrdma devices --tree --mstconfig 0000:03:00.0=mst.txt
  ssh bluefield zrdma devices --tree --json > soc.json && zrdma devices --pair soc.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	fs := c.Flags()
	fs.SortFlags = false
	fs.BoolVar(&f.tree, "tree", false, "cards, their functions and RDMA devices as a tree")
	fs.BoolVar(&f.caps, "caps", false, "what each RDMA device can do, by trying it")
	fs.BoolVar(&f.asJSON, "json", false, "print JSON: a list; with --tree the whole inventory with its evidence")
	fs.BoolVar(&f.evidence, "evidence", false, "with --tree and --caps: what proves each statement")
	fs.StringArrayVar(&f.mstconfig, "mstconfig", nil, "`PCI=FILE`: what mstconfig printed for a card; may be repeated")
	fs.StringVar(&f.pair, "pair", "", "match with the inventory of the other side, a `FILE` of devices --tree --json")
	fs.StringVar(&f.root, "root", "", "look at this folder instead of /")
	_ = fs.MarkHidden("root")
	return c
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q", args[0])
	}
	return nil
}

// noDevice says what to do about a device that is not there.
func noDevice(why error) error {
	return coded{fmt.Errorf(`%w
What to do:
  with an RDMA card: load its driver (for instance modprobe mlx5_ib) and install
    its library (package ibverbs-providers)
  without one: Soft-RoCE runs RDMA over any network card, as root:
    modprobe rdma_rxe && rdma link add rxe0 type rxe netdev eth0
  without that in the kernel either: the software device, --device soft:127.0.0.1,
    or bin/softroce run -- COMMAND in a VM that has Soft-RoCE (see test/softroce)`, why), ExitNoDevice}
}

// look reads what a device says of itself. What cannot be read is in Error.
func look(d *verbs.Device) deviceRow {
	r := deviceRow{Name: d.Name(), NodeGUID: d.GUID().String(), Transport: transport(d.Transport()), Ports: []portRow{}}
	if err := lookPorts(d, &r); err != nil {
		r.Error = err.Error()
	}
	return r
}

func lookPorts(d *verbs.Device, r *deviceRow) (err error) {
	ctx, err := d.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ctx.Close()) }()
	a, err := ctx.QueryDevice()
	if err != nil {
		return err
	}
	entries := 1
	for p := uint8(1); p <= a.PhysPortCnt; p++ {
		pa, err := ctx.QueryPort(p)
		if err != nil {
			return err
		}
		entries += int(pa.GIDTblLen)
		r.Ports = append(r.Ports, portRow{
			Port: p, State: words("PORT_", pa.State), ActiveMTU: 128 << pa.ActiveMTU,
			LinkLayer: linkLayer(pa.LinkLayer), GIDs: []gidRow{},
		})
	}
	table, err := ctx.QueryGIDTable(entries, 0)
	if err != nil {
		return err
	}
	for _, e := range table {
		if e.Port < 1 || int(e.Port) > len(r.Ports) || e.GID.IsZero() {
			continue
		}
		g := gidRow{Index: e.Index, GID: e.GID.Addr().String(), Type: gidType(e.Type)}
		if e.Ifindex != 0 {
			if ifi, err := net.InterfaceByIndex(int(e.Ifindex)); err == nil {
				g.Netdev = ifi.Name
			}
		}
		p := &r.Ports[e.Port-1]
		p.GIDs = append(p.GIDs, g)
	}
	return nil
}

func transport(t verbs.TransportType) string {
	switch t {
	case verbs.TransportIB:
		return "InfiniBand" // RoCE too: it is InfiniBand's transport over Ethernet
	case verbs.TransportIwarp:
		return "iWARP"
	}
	return words("TRANSPORT_", t)
}

func linkLayer(l verbs.LinkLayer) string {
	switch l {
	case verbs.LinkLayerEthernet:
		return "Ethernet"
	case verbs.LinkLayerInfiniband:
		return "InfiniBand"
	}
	return words("LINK_LAYER_", l)
}

func gidType(t verbs.GIDType) string {
	switch t {
	case verbs.GIDTypeIB:
		return "IB"
	case verbs.GIDTypeRoCEV1:
		return "RoCE v1"
	case verbs.GIDTypeRoCEV2:
		return "RoCE v2"
	}
	return t.String()
}

// words makes the name of a constant readable: PORT_ACTIVE to active.
func words(prefix string, v fmt.Stringer) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(v.String(), prefix), "_", " "))
}

// printDevices writes a line for every GID; what repeats is left out.
func printDevices(w io.Writer, rows []deviceRow) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DEVICE\tNODE GUID\tTRANSPORT\tPORT\tSTATE\tMTU\tLINK LAYER\tGID\tADDRESS\tTYPE\tNETDEV")
	for _, d := range rows {
		dev := fmt.Sprintf("%s\t%s\t%s", d.Name, d.NodeGUID, d.Transport)
		if len(d.Ports) == 0 {
			fmt.Fprintln(t, dev+"\t-\t-\t-\t-\t-\t-\t-\t-")
		}
		for _, p := range d.Ports {
			line := fmt.Sprintf("%s\t%d\t%s\t%d\t%s", dev, p.Port, p.State, p.ActiveMTU, p.LinkLayer)
			if len(p.GIDs) == 0 {
				fmt.Fprintln(t, line+"\t-\t-\t-\t-")
			}
			for _, g := range p.GIDs {
				netdev := g.Netdev
				if netdev == "" {
					netdev = "-"
				}
				fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\n", line, g.Index, g.GID, g.Type, netdev)
				line = strings.Repeat("\t", 6)
			}
			dev = "\t\t"
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, d := range rows {
		if d.Error != "" {
			fmt.Fprintf(w, "%s: %s\n", d.Name, d.Error)
		}
	}
	return nil
}
