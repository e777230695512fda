package coverage

import (
	"bytes"
	"maps"
	"os"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

const head = "name\theader\tkind\tgroup\tpurpose\trxe_6.1_rc44\trxe_6.12_rc44\tnote\tsince\n"

func row(name, group, since string) string {
	return name + "\tverbs.h\textern\t" + group + "\t\t\t\t\t" + since + "\n"
}

// fixture is a tree in which everything is reached, each entry point its own way.
func fixture() fstest.MapFS {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	return fstest.MapFS{
		apiFile: file(head + row("ibv_a", "one", "<=44") + row("ibv_b", "one", "<=44") + row("ibv_c", "two", "<=44") +
			row("ibv_hidden", "internal", "<=44") + row("ibv_new", "two", "59.0")),
		minFile: file("3\n"),
		door + "/x_linux.c": file(`#include "zr.h"
struct later { int x; };
static int helper(void *p) { return ibv_a(p); }
int zr_a(void *p)
{
	if (p) { return helper(p); }
	return 0;
}
int zr_new(void) { return ((int (*)(void))zr_sym(0, "ibv_new"))(); }
`),
		door + "/zr_syms.h": file("ZR_FUNC(verbs, int, ibv_a, (void *p), (p), 0)\n"),
		door + "/x.go": file(`package ibv

// #include "zr.h"
// static int zr_b(void *p) { return ibv_b(p); }
import "C"

func f() { C.zr_a(nil); C.zr_b(nil); C.ibv_c(nil); C.zr_new() }
`),
		"verbs/v.go": file(`package verbs

// A does a.
//
// Verb: ibv_a(3), ibv_b(3),
// ibv_c(3).
func A() {}

// New is new. Verb: ibv_new(3).
type New struct{}
`),
	}
}

func measure(t *testing.T, fsys fstest.MapFS) *Report {
	t.Helper()
	r, err := Measure(fsys)
	require.NoError(t, err)
	return r
}

func TestReached(t *testing.T) {
	r := measure(t, fixture())
	for i := range r.Entries {
		require.True(t, r.Entries[i].Reached(), "%+v", r.Entries[i])
	}
	n, all := r.Count(false)
	require.Equal(t, [2]int{3, 3}, [2]int{n, all}, "without the internal row and the newer one")
	n, all = r.Count(true)
	require.Equal(t, [2]int{1, 1}, [2]int{n, all})
	require.NoError(t, r.Err())
}

// Each way of only seeming to be bound must be found, with its reason.
func TestNotReached(t *testing.T) {
	for _, tt := range []struct {
		name, file, old, new string
		entry, why           string
	}{
		{"no call", "/x_linux.c", "return ibv_a(p)", "return 0", "ibv_a", "no C call"},
		{"call in a comment", "/x_linux.c", "return ibv_a(p)", "return 0; /* ibv_a(p) */", "ibv_a", "no C call"},
		{"call in a line comment", "/x_linux.c", "return ibv_a(p); }", "return 0; // ibv_a(p)\n}", "ibv_a", "no C call"},
		{"call in a string", "/x_linux.c", "return ibv_a(p)", `puts("ibv_a(p)"); return 0`, "ibv_a", "no C call"},
		{"old entry point by name", "/x_linux.c", "return ibv_a(p)", `return !!zr_sym(0, "ibv_a")`, "ibv_a", "no C call"},
		{"call compiled out", "/x_linux.c", "return ibv_a(p);", "\n#ifdef ZR_NEVER\nreturn ibv_a(p);\n#endif\n", "ibv_a", "no C call"},
		{"call in #if 0", "/x_linux.c", "return ibv_a(p);", "\n#if 0\nreturn ibv_a(p);\n#endif\n", "ibv_a", "no C call"},
		{"call in a macro nobody uses", "/x_linux.c", "return ibv_a(p);", "\n#define X(p) ibv_a(p)\nreturn 0;", "ibv_a", "no C call"},
		{"other name", "/x_linux.c", "return ibv_a(p)", "return ibv_a_ex(p)", "ibv_a", "no C call"},
		{"no way from Go", "/x_linux.c", "return helper(p)", "return 1", "ibv_a", "not called from Go"},
		{"Go does not call", "/x.go", "C.zr_a(nil); ", "", "ibv_a", "not called from Go"},
		{"preamble not called", "/x.go", "C.zr_b(nil); ", "_ = C.zr_b; ", "ibv_b", "not called from Go"},
		{"newer not called", "/x.go", "; C.zr_new()", "", "ibv_new", "not called from Go"},
		{"not in the list", "verbs/v.go", "ibv_a(3), ibv_b(3)", "ibv_a(3)", "ibv_b", "no Verb: doc"},
		{"named in the text only", "verbs/v.go", "// Verb: ibv_a(3), ibv_b(3),\n// ibv_c(3).", "// It calls ibv_a(3). Verb: ibv_b(3), ibv_c(3).", "ibv_a", "no Verb: doc"},
		{"not exported", "verbs/v.go", "func A()", "func a()", "ibv_c", "no Verb: doc"},
		{"type not exported", "verbs/v.go", "type New", "type old", "ibv_new", "no Verb: doc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fsys := maps.Clone(fixture())
			name := tt.file
			if name[0] == '/' {
				name = door + name
			}
			old := fsys[name].Data
			changed := bytes.ReplaceAll(old, []byte(tt.old), []byte(tt.new))
			require.NotEqual(t, string(old), string(changed), "the fixture has no %q", tt.old)
			fsys[name] = &fstest.MapFile{Data: changed}
			r := measure(t, fsys)
			for i := range r.Entries {
				e := &r.Entries[i]
				if e.Name == tt.entry {
					require.False(t, e.Reached())
					require.Equal(t, tt.why, e.Why())
				}
			}
			var out bytes.Buffer
			r.Print(&out)
			require.Contains(t, out.String(), "missing "+tt.entry)
			if tt.entry != "ibv_new" {
				require.ErrorContains(t, r.Err(), "says at least 3")
			} else {
				require.NoError(t, r.Err(), "newer entry points are not in the number")
			}
		})
	}
}

// The symbol list of the loader proves nothing.
func TestLoaderDoesNotCount(t *testing.T) {
	fsys := fixture()
	fsys[door+"/x_linux.c"] = &fstest.MapFile{Data: []byte("int zr_new(void) { return 0; }")}
	fsys[door+"/zr_dl_linux.c"] = &fstest.MapFile{Data: []byte("int zr_a(void *p) { return ibv_a(p); }")}
	r := measure(t, fsys)
	require.False(t, r.Entries[0].InC)
	require.Error(t, r.Err())
}

// The recorded minimum is that of this tree, so that it cannot fall unnoticed.
func TestThisTree(t *testing.T) {
	r, err := Measure(os.DirFS("../.."))
	require.NoError(t, err)
	require.NoError(t, r.Err())
	n, all := r.Count(false)
	require.LessOrEqual(t, n, all)
	require.Equal(t, n, r.Min, "more is reached than docs/coverage.min says: raise it")
}
