package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/zrdma/zrdma/dpu/doctor"
)

func doctorCommand() *cobra.Command {
	f := &deviceFlags{}
	asJSON, watch := false, seconds(0)
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong or slow for RDMA here, and what mends it",
		Long: `Looks at modules, permissions, limits, ports, addresses, MTU, congestion control,
NUMA, PCIe, IOMMU, firmware mode and error counters, and says what is wrong or
slow for RDMA on this machine, each with the command that mends it. It changes
nothing itself. What cannot be read is not judged.

Exits with 1 when something is broken, not for what is slow.
` + exitCodes,
		Example: "  zrdma doctor\n  zrdma doctor --watch 10s --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch < 0 {
				return usagef("--watch is negative")
			}
			dc, err := f.config()
			if err != nil {
				return err
			}
			found, err := doctor.Examine(cmd.Context(), doctor.Config{Root: f.root, Discover: dc, Watch: time.Duration(watch)})
			if err != nil {
				return err
			}
			if asJSON {
				if found == nil {
					found = []doctor.Finding{}
				}
				err = printJSON(cmd.OutOrStdout(), found)
			} else {
				err = printFindings(cmd.OutOrStdout(), found)
			}
			if err != nil {
				return err
			}
			if len(found) > 0 && found[0].Level == doctor.Broken {
				return errSaid
			}
			return nil
		},
	}
	fs := c.Flags()
	fs.SortFlags = false
	fs.Var(&watch, "watch", "read the counters twice with this time between, and report those that grow")
	fs.BoolVar(&asJSON, "json", false, "print JSON: a list")
	fs.StringArrayVar(&f.mstconfig, "mstconfig", nil, "`PCI=FILE`: what mstconfig printed for a card; may be repeated")
	fs.StringVar(&f.root, "root", "", "look at this folder instead of /")
	_ = fs.MarkHidden("root")
	return c
}

func printFindings(w io.Writer, found []doctor.Finding) error {
	if len(found) == 0 {
		_, err := fmt.Fprintln(w, "Nothing is wrong for RDMA on this machine, as far as can be read.")
		return err
	}
	for _, x := range found {
		if _, err := fmt.Fprintf(w, "%-6s  %s: %s: %s\n        mend: %s\n", x.Level, x.Check, x.Subject, x.What, x.Mend); err != nil {
			return err
		}
	}
	return nil
}
