package userland

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/zrdma/zrdma/test/softroce/internal/apt"
	"github.com/zrdma/zrdma/test/softroce/kernel"
)

const suite = "bookworm"

// packages is what a guest gets; apt adds what these need. The -dev packages make
// the folder a sysroot.
var packages = []string{
	"dash", "bash", "coreutils", "grep", "sed", "findutils", "procps", "hostname", "util-linux", "kmod", "iproute2",
	"ibverbs-providers", "ibverbs-utils", "rdmacm-utils",
	"libc6-dev", "libibverbs-dev", "librdmacm-dev",
}

// Config says what is wanted.
type Config struct {
	Arch   string    // Debian's and Go's name of it, e.g. "arm64"
	Cache  string    // default: kernel.CacheDir()
	Update bool      // ask Debian again although the cache has it
	Log    io.Writer // what takes long is said here; default: nowhere
}

// Find returns the folder, filling the cache if needed.
func Find(ctx context.Context, cfg Config) (string, error) {
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	if !slices.Contains(kernel.Archs, cfg.Arch) {
		return "", fmt.Errorf("userland: architecture %q is not one of %s", cfg.Arch, strings.Join(kernel.Archs, ", "))
	}
	if cfg.Cache == "" {
		dir, err := kernel.CacheDir()
		if err != nil {
			return "", err
		}
		cfg.Cache = dir
	}
	root := filepath.Join(cfg.Cache, "userland")
	dir := filepath.Join(root, name(cfg.Arch))
	if isDir(dir) && !cfg.Update {
		return dir, nil
	}
	unlock, err := kernel.Lock(ctx, filepath.Join(root, "lock"), cfg.Log)
	if err != nil {
		return "", err
	}
	defer unlock()
	if isDir(dir) && !cfg.Update {
		return dir, nil // another process was faster
	}
	if err := fill(ctx, cfg, root, dir); err != nil {
		return "", fmt.Errorf("userland: Debian %s for %s: %w", suite, cfg.Arch, err)
	}
	return dir, nil
}

// name changes with whatever changes the content. "%x" of a short hash is enough
// to tell the few apart that ever exist.
func name(arch string) string {
	h := sha256.Sum256([]byte(suite + " " + layout + " " + strings.Join(packages, " ")))
	return fmt.Sprintf("%s-%x", arch, h[:4])
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// fill downloads and unpacks into a temporary folder and renames it to dir. The
// caller holds the lock.
func fill(ctx context.Context, cfg Config, root, dir string) error {
	if err := kernel.Need(map[string]string{"apt-get": "apt", "dpkg-deb": "dpkg"}); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(root, ".tmp-*"))
	if err != nil {
		return err
	}
	for _, p := range old { // left by a process that was killed; we have the lock
		if err := os.RemoveAll(p); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp(root, ".tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	a, err := apt.Private(ctx, tmp, cfg.Arch, suite)
	if err != nil {
		return err
	}
	fmt.Fprintf(cfg.Log, "softroce: downloading Debian's programs and libraries for %s into the cache (about 40 MB, once)\n", cfg.Arch)
	debs, err := a.Closure(ctx, packages...)
	if err != nil {
		return err
	}
	tree := filepath.Join(tmp, "tree")
	for _, deb := range debs {
		if _, err := apt.Run(ctx, tmp, nil, "dpkg-deb", "-x", deb, tree); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
		}
	}
	if err := arrange(tree); err != nil {
		return err
	}
	older, err := filepath.Glob(filepath.Join(root, cfg.Arch+"-*"))
	if err != nil {
		return err
	}
	for _, p := range older { // dir too, when it is being updated
		if err := os.RemoveAll(p); err != nil {
			return err
		}
	}
	return os.Rename(tree, dir)
}
