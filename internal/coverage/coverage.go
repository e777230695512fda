package coverage

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Where things are in the tree.
const (
	apiFile = "docs/verbs-api.tsv"
	minFile = "docs/coverage.min"
	door    = "internal/ibv"
)

var public = []string{"verbs", "verbs/rdmacm", "verbs/rsocket"}

// What of the door is a list of symbols and no use of them.
var notCalls = map[string]bool{"zr_syms.h": true, "zr_dl_linux.c": true}

// What of the headers is no entry point: rdma_seterrno only turns a number into
// the errno convention of the others.
var notEntry = map[string]bool{"rdma_seterrno": true}

// Entry is an entry point and how far it can be reached.
type Entry struct {
	Name, Group, Since string
	InC, FromGo, Doc   bool
}

// Reached reports that a Go program can call it and find it.
func (e *Entry) Reached() bool { return e.InC && e.FromGo && e.Doc }

// Why says what is missing.
func (e *Entry) Why() string {
	var w []string
	switch {
	case !e.InC:
		w = append(w, "no C call")
	case !e.FromGo:
		w = append(w, "not called from Go")
	}
	if !e.Doc {
		w = append(w, "no Verb: doc")
	}
	return strings.Join(w, ", ")
}

// Newer reports an entry point that the oldest supported rdma-core lacks; it is
// not in the number that must not fall.
func (e *Entry) Newer() bool { return e.Since != "<=44" }

// Report is the state of every public entry point.
type Report struct {
	Entries []Entry
	Min     int // recorded
}

// Measure reads a tree.
func Measure(fsys fs.FS) (*Report, error) {
	r := &Report{}
	if err := r.readAPI(fsys); err != nil {
		return nil, err
	}
	b, err := fs.ReadFile(fsys, minFile)
	if err != nil {
		return nil, err
	}
	if r.Min, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
		return nil, fmt.Errorf("%s: %w", minFile, err)
	}
	funcs, roots, err := r.readDoor(fsys)
	if err != nil {
		return nil, err
	}
	inC := map[string]bool{}
	for _, calls := range funcs {
		for c := range calls {
			inC[c] = true
		}
	}
	reach := closure(funcs, roots)
	docs := map[string]bool{}
	for _, dir := range public {
		if err := documented(fsys, dir, docs); err != nil {
			return nil, err
		}
	}
	for i := range r.Entries {
		e := &r.Entries[i]
		e.FromGo = reach[e.Name]
		e.InC = inC[e.Name] || roots[e.Name]
		e.Doc = docs[e.Name]
	}
	return r, nil
}

func (r *Report) readAPI(fsys fs.FS) error {
	b, err := fs.ReadFile(fsys, apiFile)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	col := map[string]int{}
	for i, h := range strings.Split(lines[0], "\t") {
		col[h] = i
	}
	for n, l := range lines[1:] {
		f := strings.Split(l, "\t")
		if len(f) != len(col) {
			return fmt.Errorf("%s:%d: %d columns, the head has %d", apiFile, n+2, len(f), len(col))
		}
		if g := f[col["group"]]; g != "internal" && !notEntry[f[col["name"]]] {
			r.Entries = append(r.Entries, Entry{Name: f[col["name"]], Group: g, Since: f[col["since"]]})
		}
	}
	return nil
}

// readDoor gives the calls of every C function, and the names that Go calls.
func (r *Report) readDoor(fsys fs.FS) (funcs map[string]map[string]bool, roots map[string]bool, err error) {
	newer := map[string]bool{}
	for i := range r.Entries {
		if e := &r.Entries[i]; e.Newer() {
			newer[e.Name] = true
			newer["_"+e.Name] = true // what a sized inline calls
		}
	}
	files, err := fs.ReadDir(fsys, door)
	if err != nil {
		return nil, nil, err
	}
	roots = map[string]bool{}
	var texts []string
	for _, d := range files {
		name := path.Join(door, d.Name())
		switch ext := path.Ext(name); {
		case d.IsDir() || strings.HasSuffix(name, "_test.go") || notCalls[d.Name()]:
		case ext == ".go":
			pre, calls, err := goFile(fsys, name)
			if err != nil {
				return nil, nil, err
			}
			texts = append(texts, pre)
			for c := range calls {
				roots[c] = true
			}
		case ext == ".c" || ext == ".h":
			b, err := fs.ReadFile(fsys, name)
			if err != nil {
				return nil, nil, err
			}
			texts = append(texts, string(b))
		}
	}
	defined := map[string]bool{}
	for _, t := range texts {
		for _, m := range defineRE.FindAllStringSubmatch(strip(t, never), -1) {
			defined[m[1]] = true
		}
	}
	funcs = map[string]map[string]bool{}
	lookedUp := func(s string) bool { return newer[s] }
	for _, t := range texts {
		functions(preprocess(strip(t, lookedUp), defined), funcs)
	}
	for _, calls := range funcs {
		for c := range calls {
			if s, ok := strings.CutPrefix(c, "_"); ok && newer[s] {
				calls[s] = true
			}
		}
	}
	return funcs, roots, nil
}

func never(string) bool { return false }

// closure is everything that the roots lead to.
func closure(funcs map[string]map[string]bool, roots map[string]bool) map[string]bool {
	seen := map[string]bool{}
	var walk func(string)
	walk = func(n string) {
		if seen[n] {
			return
		}
		seen[n] = true
		for c := range funcs[n] {
			walk(c)
		}
	}
	for n := range roots {
		walk(n)
	}
	return seen
}

// Count is how many of the entry points of the oldest supported rdma-core are
// reached, and how many there are; or of the newer ones.
func (r *Report) Count(newer bool) (reached, all int) {
	for i := range r.Entries {
		if e := &r.Entries[i]; e.Newer() == newer {
			all++
			if e.Reached() {
				reached++
			}
		}
	}
	return reached, all
}

// Err is an error when less is reached than was recorded.
func (r *Report) Err() error {
	if n, _ := r.Count(false); n < r.Min {
		return fmt.Errorf("coverage: %d entry points are reached, %s says at least %d", n, minFile, r.Min)
	}
	return nil
}

// Print writes the tables.
func (r *Report) Print(w io.Writer) {
	for _, newer := range []bool{false, true} {
		title := "entry points of rdma-core 44"
		if newer {
			title = "newer than rdma-core 44 (not in the number)"
		}
		n, all := r.Count(newer)
		fmt.Fprintf(w, "%s: %d of %d reached\n", title, n, all)
		r.table(w, newer)
		for i := range r.Entries {
			if e := &r.Entries[i]; e.Newer() == newer && !e.Reached() {
				fmt.Fprintf(w, "  missing %-36s %-24s %s\n", e.Name, e.Group, e.Why())
			}
		}
		fmt.Fprintln(w)
	}
}

func (r *Report) table(w io.Writer, newer bool) {
	type line struct{ all, c, g, doc, reached int }
	groups := map[string]*line{}
	var names []string
	for i := range r.Entries {
		e := &r.Entries[i]
		if e.Newer() != newer {
			continue
		}
		l := groups[e.Group]
		if l == nil {
			l = &line{}
			groups[e.Group] = l
			names = append(names, e.Group)
		}
		l.all++
		l.c += one(e.InC)
		l.g += one(e.FromGo)
		l.doc += one(e.Doc)
		l.reached += one(e.Reached())
	}
	sort.Strings(names)
	t := tabwriter.NewWriter(w, 2, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "group\tall\tC call\tfrom Go\tdoc\treached\t")
	for _, n := range names {
		l := groups[n]
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t\n", n, l.all, l.c, l.g, l.doc, l.reached)
	}
	t.Flush()
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
