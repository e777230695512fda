package report

import (
	"fmt"
	"math"
	"regexp"
)

// Report is what is written. Every text is plain text; it is escaped.
type Report struct {
	Title  string
	Intro  string // what was done, in a sentence or two
	Facts  []Fact // when, where, with what
	Charts []Chart
	Tables []Table
	Notes  []string // what a reader must know to read the numbers
	// Data is written as JSON into the file (<script id="data">), so that a program
	// can read a report; nil: none.
	Data any
}

// Fact is a line of the head of a report.
type Fact struct{ Name, Value string }

// Kind is how a chart is drawn.
type Kind uint8

// Values of Kind.
const (
	Bars        Kind = iota // a bar for each category and series, side by side
	StackedBars             // the series of one Stack on top of each other
	Lines                   // over X, a number
)

// Chart is one picture.
type Chart struct {
	Title   string
	Caption string // how to read it; may be empty
	Kind    Kind
	XTitle  string
	YTitle  string    // with the unit
	Labels  []string  // the categories of bars, from left to right
	X       []float64 // the values of x of lines
	LogX    bool
	LogY    bool
	Series  []Series
}

// Series is one line, or one colour of bars: a value for each label or x. NaN is
// a value that is not there.
type Series struct {
	Name  string
	Stack string // StackedBars: which pile
	Y     []float64
	// Low and High are drawn as whiskers: the least and the greatest of several
	// runs. Both empty: none.
	Low, High []float64
}

// Table is a table. A column of numbers, and of "-" for what is not there, is set to
// the right.
type Table struct {
	Title   string
	Caption string
	Header  []string
	Rows    [][]string
}

// check refuses a chart whose parts do not fit together.
func (c *Chart) check() error {
	n := len(c.Labels)
	if c.Kind == Lines {
		n = len(c.X)
	}
	if c.Kind > Lines {
		return fmt.Errorf("report: chart %q: no kind %d", c.Title, c.Kind)
	}
	for _, s := range c.Series {
		if len(s.Y) != n {
			return fmt.Errorf("report: chart %q: series %q has %d values for %d places", c.Title, s.Name, len(s.Y), n)
		}
		if len(s.Low) != len(s.High) || len(s.Low) != 0 && len(s.Low) != n {
			return fmt.Errorf("report: chart %q: series %q has %d lower and %d upper ends for %d places", c.Title, s.Name, len(s.Low), len(s.High), n)
		}
	}
	return nil
}

// numbers are values as JSON has them: null for what is not there.
func numbers(v []float64) []*float64 {
	if v == nil {
		return nil
	}
	out := make([]*float64, len(v))
	for i := range v {
		if !math.IsNaN(v[i]) && !math.IsInf(v[i], 0) {
			out[i] = &v[i]
		}
	}
	return out
}

func (t *Table) check() error {
	for i, r := range t.Rows {
		if len(r) != len(t.Header) {
			return fmt.Errorf("report: table %q: row %d has %d cells for %d columns", t.Title, i, len(r), len(t.Header))
		}
	}
	return nil
}

// Numeric says whether a column is one of numbers.
func (t Table) Numeric(column int) bool {
	numbers := false
	for _, r := range t.Rows {
		switch c := r[column]; {
		case c == "-" || c == "":
		case !startsNumber.MatchString(c):
			return false
		default:
			numbers = true
		}
	}
	return numbers
}

var startsNumber = regexp.MustCompile(`^[-+]?[0-9]`)
