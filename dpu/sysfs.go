package dpu

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// maxFile is more than any attribute of sysfs has; vital product data is at most 32 KiB.
const maxFile = 64 << 10

// tree reads below a root that cannot be left, also not by a symbolic link.
type tree struct {
	root *os.Root
	warn func(format string, args ...any)
}

// absent are the ways in which the kernel says that an attribute has no value; a
// device that vanishes while it is read is ENODEV.
var absent = []error{fs.ErrNotExist, syscall.ENODEV, syscall.ENXIO, syscall.EOPNOTSUPP, syscall.EINVAL, syscall.ENOTDIR, syscall.EISDIR, syscall.ENODATA}

func isAbsent(err error) bool {
	for _, a := range absent {
		if errors.Is(err, a) {
			return true
		}
	}
	return false
}

// bytes reads a file; nil when it is absent. What else goes wrong is a warning.
func (t *tree) bytes(p string) []byte {
	f, err := t.root.Open(p)
	if err != nil {
		if !isAbsent(err) {
			t.warn("%v", err)
		}
		return nil
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		if !isAbsent(err) {
			t.warn("%s: %v", p, err)
		}
		return nil
	}
	return b
}

// text reads an attribute of one value; "" when it is absent, empty or garbage.
func (t *tree) text(p string) string {
	s := strings.TrimSpace(strings.TrimRight(string(t.bytes(p)), "\x00"))
	for _, r := range s {
		if r == 0xfffd || r < ' ' && r != '\n' && r != '\t' {
			t.warn("%s: not text", p)
			return ""
		}
	}
	return s
}

// number reads a decimal attribute; false when there is none.
func (t *tree) number(p string) (int, bool) {
	s := t.text(p)
	if s == "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.warn("%s: %q is no number", p, clip(s))
		return 0, false
	}
	return n, true
}

// list names what is in a folder, sorted; nil when it is absent.
func (t *tree) list(p string) []string {
	f, err := t.root.Open(p)
	if err == nil {
		defer f.Close()
		var l []fs.DirEntry
		if l, err = f.ReadDir(-1); err == nil {
			names := make([]string, len(l))
			for i, e := range l {
				names[i] = e.Name()
			}
			return sorted(names)
		}
	}
	if !isAbsent(err) {
		t.warn("%v", err)
	}
	return nil
}

func (t *tree) exists(p string) bool {
	_, err := t.root.Stat(p)
	return err == nil
}

// target is where a link points, as a path from the root; p itself when it is no link.
func (t *tree) target(p string) string {
	l, err := t.root.Readlink(p)
	if err != nil || path.IsAbs(l) {
		return p
	}
	return path.Join(path.Dir(p), l)
}

// link is the last element of a link's target, "" when p is no link or one that
// leaves the tree: sysfs has relative links only.
func (t *tree) link(p string) string {
	l, err := t.root.Readlink(p)
	if err != nil || path.IsAbs(l) {
		return ""
	}
	return path.Base(l)
}

var pciAddr = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

func isPCI(s string) bool { return pciAddr.MatchString(s) }

// owner finds the PCI function and the subfunction that a class device hangs below.
func owner(devicePath string) (pci, aux string) {
	for p := devicePath; p != "." && p != "/"; p = path.Dir(p) {
		b := path.Base(p)
		if isPCI(b) {
			return b, aux
		}
		if strings.Contains(b, ".sf.") {
			aux = b
		}
	}
	return "", ""
}

// clip shortens what others wrote, for a message.
func clip(s string) string {
	if len(s) > 60 {
		return fmt.Sprintf("%s... (%d bytes)", s[:60], len(s))
	}
	return s
}
