package doctor

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// text is the value of an attribute, "" when it cannot be read.
func (e *exam) text(p string) string {
	f, err := e.root.Open(p)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (e *exam) number(p string) (uint64, bool) {
	n, err := strconv.ParseUint(e.text(p), 10, 64)
	return n, err == nil
}

func (e *exam) exists(p string) bool {
	_, err := e.root.Stat(p)
	return err == nil
}

// list names what is in a folder, sorted.
func (e *exam) list(p string) []string {
	f, err := e.root.Open(p)
	if err != nil {
		return nil
	}
	defer f.Close()
	l, err := f.Readdirnames(-1)
	if err != nil {
		return nil
	}
	return sorted(l)
}

// openNode opens a node as libibverbs would. In another root it may be any file.
func openNode(root, p string) error {
	f, err := os.OpenFile(filepath.Join(root, p), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.IsDir() {
		return errNotRegular
	}
	return nil
}
