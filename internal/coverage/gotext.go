package coverage

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// goFile is what is taken from a Go file of the door: its C preamble and the C
// functions it calls.
func goFile(fsys fs.FS, name string) (preamble string, calls map[string]bool, err error) {
	src, err := fs.ReadFile(fsys, name)
	if err != nil {
		return "", nil, err
	}
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments)
	if err != nil {
		return "", nil, err
	}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.IMPORT {
			continue
		}
		for _, s := range g.Specs {
			if s.(*ast.ImportSpec).Path.Value == `"C"` && g.Doc != nil {
				for _, c := range g.Doc.List {
					t := strings.TrimPrefix(c.Text, "//")
					t = strings.TrimSuffix(strings.TrimPrefix(t, "/*"), "*/")
					preamble += t + "\n"
				}
			}
		}
	}
	calls = map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		c, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if s, ok := c.Fun.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "C" {
				calls[s.Sel.Name] = true
			}
		}
		return true
	})
	return preamble, calls, nil
}

var (
	verbListRE = regexp.MustCompile(`Verb:((?:\s*[A-Za-z_]\w*\(\d\)[,.;]?)+)`)
	verbRE     = regexp.MustCompile(`([A-Za-z_]\w*)\(\d\)`)
)

// documented collects the entry points in the Verb lists of the doc comments of
// exported declarations of the package in dir.
func documented(fsys fs.FS, dir string, into map[string]bool) error {
	files, err := fs.Glob(fsys, path.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			for _, doc := range exportedDocs(d) {
				for _, l := range verbListRE.FindAllStringSubmatch(doc.Text(), -1) {
					for _, v := range verbRE.FindAllStringSubmatch(l[1], -1) {
						into[v[1]] = true
					}
				}
			}
		}
	}
	return nil
}

func exportedDocs(d ast.Decl) (out []*ast.CommentGroup) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc != nil {
			out = append(out, d.Doc)
		}
	case *ast.GenDecl:
		exported := false
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() {
					exported = true
					out = append(out, s.Doc)
				}
			case *ast.ValueSpec:
				if s.Names[0].IsExported() {
					exported = true
					out = append(out, s.Doc)
				}
			}
		}
		if exported {
			out = append(out, d.Doc)
		}
	}
	kept := out[:0]
	for _, c := range out {
		if c != nil {
			kept = append(kept, c)
		}
	}
	return kept
}
