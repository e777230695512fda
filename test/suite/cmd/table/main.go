// Command table turns the test2json logs of suite runs into the table of
// docs/rxe.md: a row a case, a column a run.
//
//	go run ./test/suite/cmd/table 6.1=bin/log/suite-6.1.json 6.12=bin/log/suite-6.12.json
//
// With -soft it writes the table of docs/soft.md, in which the software device
// stands beside rxe:
//
//	go run ./test/suite/cmd/table -soft UDP=bin/log/suite-soft.json memory=bin/log/suite-memory.json
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

type event struct{ Action, Test string }

func main() {
	args := os.Args[1:]
	soft := len(args) > 0 && args[0] == "-soft"
	if soft {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: table [-soft] NAME=LOG.json...")
		os.Exit(2)
	}
	tsv, err := os.ReadFile("test/suite/cases.tsv")
	if err != nil {
		fail(fmt.Errorf("run it in the root of the repository: %w", err))
	}
	var names []string
	var results []map[string]string
	for _, arg := range args {
		name, file, ok := strings.Cut(arg, "=")
		if !ok {
			fail(fmt.Errorf("%q is not NAME=LOG.json", arg))
		}
		r, err := read(file)
		if err != nil {
			fail(err)
		}
		names, results = append(names, name), append(results, r)
	}
	if soft {
		var cases [][]string
		for _, line := range strings.Split(strings.TrimRight(string(tsv), "\n"), "\n")[1:] {
			cases = append(cases, strings.Split(line, "\t"))
		}
		if err := writeSoft(names, results, cases); err != nil {
			fail(err)
		}
		return
	}
	fmt.Printf("| id | case | asserts | %s |\n|---|---|---|%s\n", strings.Join(names, " | "), strings.Repeat("---|", len(names)))
	passed := make([]int, len(names))
	for i, line := range strings.Split(strings.TrimSpace(string(tsv)), "\n") {
		if i == 0 {
			continue
		}
		f := strings.Split(line, "\t")
		fmt.Printf("| %s | %s | %s |", f[0], f[1], f[2])
		for k, r := range results {
			s := r[f[0]]
			if s == "" {
				s = "did not run"
			}
			if s == "pass" {
				passed[k]++
			}
			fmt.Printf(" %s |", s)
		}
		fmt.Println()
	}
	fmt.Println()
	for k, n := range names {
		fmt.Printf("%s: %d of 146 passed.\n", n, passed[k])
	}
}

// read maps case ids to pass, fail or skip.
func read(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]string{}
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var e event
		if json.Unmarshal(sc.Bytes(), &e) != nil || e.Action != "pass" && e.Action != "fail" && e.Action != "skip" {
			continue
		}
		rest, ok := strings.CutPrefix(e.Test, "TestVerbs/")
		if !ok || strings.Contains(rest, "/") {
			continue
		}
		id, _, _ := strings.Cut(rest, "_")
		out[id] = e.Action
	}
	return out, sc.Err()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "table:", err)
	os.Exit(1)
}
