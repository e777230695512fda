package lint

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
	"testing"
)

const maxLines = 800

func short(files []*file) (bad []string) {
	for _, f := range files {
		if f.lines > maxLines {
			bad = append(bad, fmt.Sprintf("%s: %d lines, at most %d: split it by topic", f.name, f.lines, maxLines))
		}
	}
	return bad
}

func TestFilesAreShort(t *testing.T) {
	proves(t, short,
		fixture{"a/a.go", "package a\n" + strings.Repeat("\n", maxLines-1), false},
		fixture{"a/a.go", "package a\n" + strings.Repeat("\n", maxLines), true})
	onTree(t, short)
}

// heaps are package names that say nothing of what is inside.
var heaps = []string{"util", "utils", "common", "types", "helpers", "misc"}

func named(files []*file) (bad []string) {
	for _, f := range files {
		if n := strings.TrimSuffix(f.ast.Name.Name, "_test"); slices.Contains(heaps, n) {
			bad = append(bad, f.name+": a package named "+n+" is a heap: name it by its noun")
		}
	}
	return bad
}

func TestPackagesHaveNames(t *testing.T) {
	proves(t, named,
		fixture{"a/a.go", "package netpoll\n", false},
		fixture{"a/a.go", "package util\n", true},
		fixture{"a/a_test.go", "package types_test\n", true})
	onTree(t, named)
}

// public are the folders whose exported functions are documented one by one.
var public = []string{"verbs", "verbs/rdmacm", "verbs/rsocket"}

func documented(files []*file) (bad []string) {
	for _, f := range files {
		if f.isTest() || !slices.Contains(public, f.dir()) {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !fn.Name.IsExported() || !ast.IsExported(receiver(fn)) {
				continue
			}
			if obvious(fn) || strings.TrimSpace(fn.Doc.Text()) != "" {
				continue
			}
			bad = append(bad, f.at(fn)+": "+fn.Name.Name+" has no doc comment")
		}
	}
	return bad
}

// obvious methods are those of error and the errors package.
func obvious(fn *ast.FuncDecl) bool {
	return fn.Recv != nil && slices.Contains([]string{"Error", "Unwrap"}, fn.Name.Name)
}

// receiver is the type's name; a function counts as a method of something exported.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return "Package"
	}
	for e := fn.Recv.List[0].Type; ; {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

func TestExportedFunctionsAreDocumented(t *testing.T) {
	proves(t, documented,
		fixture{"verbs/a.go", "package verbs\n// F does.\nfunc F() {}\n", false},
		fixture{"verbs/a.go", "package verbs\nfunc f() {}\n", false},
		fixture{"verbs/a.go", "package verbs\nfunc (t t) F() {}\n", false},
		fixture{"verbs/a.go", "package verbs\nfunc (e *E) Error() string { return \"\" }\n", false},
		fixture{"verbs/a_test.go", "package verbs\nfunc F() {}\n", false},
		fixture{"mr/a.go", "package mr\nfunc F() {}\n", false},
		fixture{"verbs/a.go", "package verbs\nfunc F() {}\n", true},
		fixture{"verbs/rsocket/a.go", "package rsocket\nfunc (s *S) F() {}\n", true},
		fixture{"verbs/rdmacm/a.go", "package rdmacm\nfunc (s *S[T]) F() {}\n", true},
		fixture{"verbs/a.go", "package verbs\n//go:noinline\nfunc F() {}\n", true})
	onTree(t, documented)
}
