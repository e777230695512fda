package userland

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// layout names the work of arrange; it changes when that does.
const layout = "1"

// kept are the folders that matter to a guest or a compiler. Everything else a
// guest has from this machine's root, which lies below.
var kept = []string{"usr/bin", "usr/sbin", "usr/lib", "usr/include", "etc/libibverbs.d"}

// unused are large folders in those, without a use in a guest.
var unused = []string{"usr/lib/*/gconv", "usr/lib/*/perl*", "usr/lib/systemd", "usr/lib/udev", "usr/lib/*/perl5", "usr/share"}

// arrange turns unpacked packages into a root folder: bin, sbin and lib become
// links into usr, as Debian's installer does and no package contains.
func arrange(root string) error {
	for _, d := range []string{"bin", "sbin", "lib"} {
		from := filepath.Join(root, d)
		if err := merge(from, filepath.Join(root, "usr", d)); err != nil {
			return err
		}
		if err := os.RemoveAll(from); err != nil {
			return err
		}
		if err := os.Symlink("usr/"+d, from); err != nil {
			return err
		}
	}
	for _, pattern := range unused {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		for _, p := range found {
			if err := os.RemoveAll(p); err != nil {
				return err
			}
		}
	}
	if err := prune(root, ""); err != nil {
		return err
	}
	if err := os.Symlink("dash", filepath.Join(root, "usr/bin/sh")); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return relink(root)
}

// merge moves what is in from into to.
func merge(from, to string) error {
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, e := range entries {
		a, b := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if _, err := os.Lstat(b); err == nil {
			if !e.IsDir() {
				return fmt.Errorf("%s is in two packages", b)
			}
			if err := merge(a, b); err != nil {
				return err
			}
			continue
		}
		if err := os.Rename(a, b); err != nil {
			return err
		}
	}
	return nil
}

// prune removes what is neither in a kept folder nor on the way to one.
func prune(root, rel string) error {
	entries, err := os.ReadDir(filepath.Join(root, rel))
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := filepath.Join(rel, e.Name())
		switch {
		case slices.Contains(kept, p) || e.Type()&fs.ModeSymlink != 0:
		case slices.ContainsFunc(kept, func(k string) bool { return strings.HasPrefix(k, p+"/") }):
			if err := prune(root, p); err != nil {
				return err
			}
		default:
			if err := os.RemoveAll(filepath.Join(root, p)); err != nil {
				return err
			}
		}
	}
	return nil
}

// relink makes absolute links relative: a compiler on this machine must not
// follow them out of its sysroot.
func relink(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		target, err := os.Readlink(path)
		if err != nil || !filepath.IsAbs(target) {
			return err
		}
		// Through usr: the links at the top are not folders.
		for _, d := range []string{"/bin/", "/sbin/", "/lib/"} {
			if strings.HasPrefix(target, d) {
				target = "/usr" + target
			}
		}
		rel, err := filepath.Rel(filepath.Dir(path), filepath.Join(root, target))
		if err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		return os.Symlink(rel, path)
	})
}
