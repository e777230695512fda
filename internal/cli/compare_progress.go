package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/zrdma/zrdma/internal/compare"
)

// compareProgress says on standard error how far a comparison is: in one line that
// changes, on a terminal; elsewhere a line for each run.
type compareProgress struct {
	w        io.Writer
	terminal bool
	width    int // of what stands there
}

func newCompareProgress(w io.Writer) *compareProgress {
	return &compareProgress{w: w, terminal: terminal(w)}
}

func (p *compareProgress) event(e compare.Event) {
	round := fmt.Sprintf("round %d", e.Round)
	if e.Round == 0 {
		round = "warm-up"
	}
	var no *compare.CannotError
	switch {
	case errors.As(e.Err, &no):
		p.line(fmt.Sprintf("%-14s cannot be done here: %s", e.Way, no.Why))
	case e.Err != nil:
		p.line(fmt.Sprintf("%-14s FAILED: %v", e.Way, e.Err))
	case e.Run != nil && e.Round > 0:
		p.line(fmt.Sprintf("%-14s %s: %.3f GB/s", e.Way, round, e.Run.Rate()))
	case e.Run != nil || !p.terminal:
	default:
		now := 0.0
		if s := e.Took.Seconds(); s > 0 {
			now = float64(e.Moved) / 1e9 / s
		}
		p.show(fmt.Sprintf("%-14s %s: %3d %% of %s, %.3f GB/s", e.Way, round, 100*e.Moved/max(e.Total, 1), compare.Size(e.Total), now))
	}
}

// show puts text where the last one stood.
func (p *compareProgress) show(text string) {
	fmt.Fprintf(p.w, "\r%-*s", p.width, text)
	p.width = len(text)
}

func (p *compareProgress) clear() {
	if p.width > 0 {
		fmt.Fprint(p.w, "\r"+strings.Repeat(" ", p.width)+"\r")
		p.width = 0
	}
}

func (p *compareProgress) line(text string) {
	p.clear()
	fmt.Fprintln(p.w, text)
}
