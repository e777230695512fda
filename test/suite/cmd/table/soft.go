package main

import (
	"fmt"
	"os"
	"strings"
)

// The agreement table lives between these lines of docs/soft.md.
const (
	softDoc = "docs/soft.md"
	begin   = "<!-- made by test/suite/cmd/table -soft; do not edit -->"
	end     = "<!-- end of the table -->"
)

const softColumn = 6

// writeSoft puts the agreement table of the software device's runs and rxe, whose
// results are those of docs/rxe.md, into docs/soft.md.
func writeSoft(names []string, results []map[string]string, cases [][]string) error {
	rxe, err := rxeResults()
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| id | case | rxe 6.1 | rxe 6.12 | %s | agreement |\n|---|---|---|---|%s---|\n", strings.Join(names, " | "), strings.Repeat("---|", len(names)))
	same, differ, none := 0, 0, 0
	for _, f := range cases {
		r := rxe[f[0]]
		if r == nil {
			return fmt.Errorf("docs/rxe.md has no results of %s", f[0])
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |", f[0], f[1], r[0], r[1])
		verdict, why, _ := strings.Cut(f[softColumn], ": ")
		passed := true
		for _, x := range results {
			s := x[f[0]]
			switch {
			case s == "" && verdict == "no":
				s = "-"
			case s == "":
				return fmt.Errorf("%s did not run", f[0])
			}
			passed = passed && s == "pass"
			fmt.Fprintf(&b, " %s |", s)
		}
		switch {
		case verdict == "no":
			none++
			why = "not there: " + why
		case !passed:
			why = "FAILS"
		case why == "":
			same++
			why = "same"
		default:
			differ++
		}
		fmt.Fprintf(&b, " %s |\n", why)
	}
	fmt.Fprintf(&b, "\nThe same assertions hold for rxe and the software device in %d cases; in %d they differ as the last column says; %d mean nothing on a software device.\n", same, differ, none)
	return replace(b.String())
}

func replace(table string) error {
	doc, err := os.ReadFile(softDoc)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(doc), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s lacks the lines %q and %q", softDoc, begin, end)
	}
	return os.WriteFile(softDoc, []byte(head+begin+"\n\n"+table+"\n"+end+tail), 0o644)
}

// rxeResults are those of docs/rxe.md: on 6.1 and on 6.12, by case.
func rxeResults() (map[string][]string, error) {
	doc, err := os.ReadFile("docs/rxe.md")
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, l := range strings.Split(string(doc), "\n") {
		f := strings.Split(l, "|")
		if len(f) != 7 || len(strings.TrimSpace(f[1])) != 3 {
			continue
		}
		out[strings.TrimSpace(f[1])] = []string{strings.TrimSpace(f[4]), strings.TrimSpace(f[5])}
	}
	return out, nil
}
