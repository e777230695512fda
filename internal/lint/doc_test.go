package lint

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// packages are the public ones: each says who owns, what may run at the same time,
// what waits and what is to be closed, and shows it in an example.
var packages = []string{"verbs", "verbs/rdmacm", "verbs/rsocket", "mr", "qp", "rpc", "rpc/protocodec", "dpu", "dpu/doctor", "rdmatest", "rdmanet"}

// compiled are examples without checked output: they need a kernel device.
var compiled = []string{"verbs/rsocket"}

func explained(files []*file) (bad []string) {
	doc, example := map[string]string{}, map[string]bool{}
	for _, f := range files {
		if !slices.Contains(packages, f.dir()) {
			continue
		}
		if !f.isTest() {
			doc[f.dir()] += f.ast.Doc.Text()
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Example") {
				example[f.dir()] = example[f.dir()] || hasOutput(f, fn) || slices.Contains(compiled, f.dir())
			}
		}
	}
	for dir, text := range doc {
		for _, h := range []string{"Ownership", "Concurrency", "Blocking", "Cleanup"} {
			if !strings.Contains(text, "# "+h+"\n") {
				bad = append(bad, fmt.Sprintf("package %s: its documentation has no head # %s", dir, h))
			}
		}
		if !example[dir] {
			bad = append(bad, fmt.Sprintf("package %s has no Example with checked output", dir))
		}
	}
	slices.Sort(bad)
	return bad
}

func hasOutput(f *file, fn *ast.FuncDecl) bool {
	for _, c := range f.ast.Comments {
		if c.Pos() > fn.Body.Lbrace && c.End() < fn.Body.Rbrace && strings.HasPrefix(c.Text(), "Output:") {
			return true
		}
	}
	return false
}

func TestPackagesAreExplained(t *testing.T) {
	const heads = "// Package mr is.\n//\n// # Ownership\n//\n// a\n//\n// # Concurrency\n//\n// a\n//\n// # Blocking\n//\n// a\n//\n"
	parsed := func(doc, test string) (out []*file) {
		for name, src := range map[string]string{"mr/doc.go": doc + "package mr\n", "mr/x_test.go": "package mr\n" + test} {
			f, err := parse(name, src)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, f)
		}
		return out
	}
	const all, good = heads + "// # Cleanup\n//\n// a\n", "func Example() {\n\t// Output: x\n}\n"
	for _, x := range []struct {
		doc, test string
		bad       int
	}{{all, good, 0}, {heads, good, 1}, {all, "", 1}, {all, "func Example() {}\n", 1}, {"", "", 5}} {
		if got := explained(parsed(x.doc, x.test)); len(got) != x.bad {
			t.Errorf("%q, want %d", got, x.bad)
		}
	}
	files := tree(t)
	for _, m := range explained(files) {
		t.Error(m)
	}
	for _, p := range packages {
		if !slices.ContainsFunc(files, func(f *file) bool { return f.dir() == p }) {
			t.Errorf("there is no package %s", p)
		}
	}
}
