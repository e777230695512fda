package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/zrdma/zrdma/internal/perf"
)

func benchCompareCommand() *cobra.Command {
	worse := 0.0
	c := &cobra.Command{
		Use:   "compare OLD.json NEW.json",
		Short: "Compare two reports of bench, with confidence",
		Long: `Compares the cases that two reports have in common: the medians with their 95 %
confidence interval, and whether the samples differ at all by the Mann-Whitney U
test ("~": they do not, at the 5 % level). It needs several samples of each case:
run bench with --repeat 6 or more, alternating the two things that you compare.
` + exitCodes,
		Example: "  zrdma bench HOST --repeat 10 --json before.json\n  zrdma bench compare before.json after.json\n  zrdma bench compare --worse 5 before.json after.json   # fails when something is 5 % worse",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("two reports, not %d: OLD.json NEW.json", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if worse < 0 {
				return usagef("--worse %v is negative", worse)
			}
			var r [2]*perf.Report
			for i, name := range args {
				f, err := os.Open(name)
				if err != nil {
					return coded{err, ExitUsage}
				}
				r[i], err = perf.ReadReport(f)
				f.Close()
				if err != nil {
					return coded{fmt.Errorf("%s: %w", name, err), ExitUsage}
				}
			}
			rows, only := perf.Compare(r[0], r[1])
			if len(rows) == 0 {
				return usagef("the reports have no case in common")
			}
			if err := perf.WriteComparison(cmd.OutOrStdout(), rows, only); err != nil {
				return coded{err, ExitReport}
			}
			for _, x := range rows {
				if cmd.Flags().Changed("worse") && x.Change < 0 && -x.Change*100 > worse {
					return fmt.Errorf("%v: %s is worse by more than %v %%", x.Case, x.Metric, worse)
				}
			}
			return nil
		},
	}
	c.Flags().Float64Var(&worse, "worse", 0, "fail when a case is worse by more than so many percent, with confidence")
	return c
}
