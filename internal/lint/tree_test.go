package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/zrdma/zrdma/"

// file is a Go file of the module; name is its path from the root, with slashes.
type file struct {
	name  string
	lines int
	ast   *ast.File
	fset  *token.FileSet
}

func (f *file) dir() string  { return path.Dir(f.name) }
func (f *file) isTest() bool { return strings.HasSuffix(f.name, "_test.go") }

// at names the place of n for a message.
func (f *file) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.name, f.fset.Position(n.Pos()).Line)
}

// imports are the paths that f imports, those of the module without its name.
func (f *file) imports() []string {
	var out []string
	for _, i := range f.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		out = append(out, strings.TrimPrefix(p, module))
	}
	return out
}

func parse(name, src string) (*file, error) {
	fset := token.NewFileSet()
	a, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &file{name, strings.Count(src, "\n"), a, fset}, nil
}

// tree parses the module: every Go file but those of nested modules, testdata
// and hidden folders.
func tree(t *testing.T) []*file {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var files []*file
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, nested := os.Stat(filepath.Join(p, "go.mod"))
			n := d.Name()
			if p != root && (nested == nil || n == "testdata" || n[0] == '.' || n[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		f, err := parse(filepath.ToSlash(rel), string(src))
		if err == nil {
			files = append(files, f)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("only %d Go files below %s: this is not the module", len(files), root)
	}
	return files
}

// rule reports what in files breaks it, one message each.
type rule func(files []*file) []string

// onTree applies a rule to the module.
func onTree(t *testing.T, r rule) {
	t.Helper()
	for _, m := range r(tree(t)) {
		t.Error(m)
	}
}

// fixture is a file that exists in memory only, and whether a rule objects to it.
type fixture struct {
	name, src string
	bad       bool
}

// proves that a rule can fail, and passes what it should.
func proves(t *testing.T, r rule, fixtures ...fixture) {
	t.Helper()
	for _, x := range fixtures {
		f, err := parse(x.name, x.src)
		if err != nil {
			t.Fatal(err)
		}
		if got := r([]*file{f}); (len(got) > 0) != x.bad {
			t.Errorf("%s: objections %q, want some: %v\n%s", x.name, got, x.bad, x.src)
		}
	}
}
