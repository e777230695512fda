package lint

import (
	"go/ast"
	"go/token"
	"path"
	"strings"
	"testing"
)

// consts calls f for every constant that f declares at its top level.
func consts(f *file, each func(name *ast.Ident, value ast.Expr)) {
	for _, d := range f.ast.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			for i, n := range v.Names {
				var val ast.Expr
				if i < len(v.Values) {
					val = v.Values[i]
				}
				each(n, val)
			}
		}
	}
}

// reexported: a value of the field's vocabulary, that is an exported constant of
// internal/provider/enum_*.go, has a public name in verbs or verbs/rdmacm.
func reexported(files []*file) (bad []string) {
	public := map[string]bool{}
	for _, f := range files {
		if f.dir() != "verbs" && f.dir() != "verbs/rdmacm" || f.isTest() {
			continue
		}
		consts(f, func(n *ast.Ident, v ast.Expr) {
			s, ok := v.(*ast.SelectorExpr)
			if !ok || !n.IsExported() {
				return
			}
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "provider" {
				public[s.Sel.Name] = true
			}
		})
	}
	for _, f := range files {
		if f.dir() != "internal/provider" || f.isTest() || !strings.HasPrefix(path.Base(f.name), "enum_") {
			continue
		}
		consts(f, func(n *ast.Ident, _ ast.Expr) {
			if n.IsExported() && !public[n.Name] {
				bad = append(bad, f.at(n)+": "+n.Name+" has no public name in verbs or verbs/rdmacm")
			}
		})
	}
	return bad
}

func TestVocabularyIsPublic(t *testing.T) {
	files := func(verbs string) (out []*file) {
		for name, src := range map[string]string{
			"internal/provider/enum_a.go": "package provider\nconst (\n\tA = 1\n\tb = 2\n)\n",
			"verbs/a.go":                  "package verbs\nimport \"provider\"\n" + verbs,
		} {
			f, err := parse(name, src)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, f)
		}
		return out
	}
	for verbs, bad := range map[string]bool{
		"const A = provider.A":      false,
		"const Other = provider.A":  false,
		"const a = provider.A":      true,
		"const A = other.A":         true,
		"var A = provider.A":        true,
		"const A = 1":               true,
		"// const A = provider.A\n": true,
	} {
		if got := reexported(files(verbs)); (len(got) > 0) != bad {
			t.Errorf("%q: objections %q, want some: %v", verbs, got, bad)
		}
	}
	proves(t, reexported, fixture{"internal/provider/other.go", "package provider\nconst A = 1\n", false})
	onTree(t, reexported)
}
