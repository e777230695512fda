package kernel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/zrdma/zrdma/test/softroce/internal/apt"
)

// meta is the package that depends on the newest ordinary kernel. The cloud and
// rt flavours have other names; the cloud flavour has no rxe.
func meta(arch string) string { return "linux-image-" + arch }

func imagePackage(arch string) *regexp.Regexp {
	return regexp.MustCompile(`\blinux-image-([0-9][0-9A-Za-z.+~]*(?:-[0-9]+)?-` + arch + `)\b`)
}

// suites says where a series lives when the machine's own apt is not asked.
var suites = map[string]string{"6.1": "bookworm", "6.12": "bookworm-backports"}

// debian returns Debian's kernel from the cache and fills it if needed.
func debian(ctx context.Context, cfg Config) (*Kernel, error) {
	series := cfg.Version
	if series == "" {
		series = "6.1"
	}
	if suites[series] == "" {
		return nil, fmt.Errorf("kernel: no Debian kernel %q is known: use 6.1 or 6.12, or name an image and its modules", series)
	}
	root := filepath.Join(cfg.Cache, "kernels")
	dir := filepath.Join(root, "debian-"+series)
	if cfg.Arch != runtime.GOARCH {
		dir += "-" + cfg.Arch
	}
	if k, err := cached(dir); err == nil && !cfg.Update {
		return k, nil
	}
	unlock, err := Lock(ctx, filepath.Join(root, "lock"), cfg.Log)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if k, err := cached(dir); err == nil && !cfg.Update {
		return k, nil // another process was faster
	}
	if err := fill(ctx, cfg, series, root, dir); err != nil {
		return nil, fmt.Errorf("kernel: Debian's %s kernel for %s: %w", series, cfg.Arch, err)
	}
	return cached(dir)
}

func cached(dir string) (*Kernel, error) {
	found, err := filepath.Glob(filepath.Join(dir, "lib/modules/*/modules.dep"))
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("kernel: nothing in the cache")
	}
	mods := filepath.Dir(found[0])
	return check(&Kernel{
		Release: filepath.Base(mods), Image: filepath.Join(dir, "vmlinuz"), Modules: mods, Origin: "debian",
	})
}

// fill downloads and unpacks into a temporary folder and renames it to dir. The
// caller holds the lock.
func fill(ctx context.Context, cfg Config, series, root, dir string) error {
	err := Need(map[string]string{
		"apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg", "depmod": "kmod",
	})
	if err != nil {
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
	deb, err := download(ctx, cfg, series, tmp)
	if err != nil {
		return err
	}
	tree := filepath.Join(tmp, "tree")
	if _, err := apt.Run(ctx, tmp, nil, "dpkg-deb", "-x", deb, tree); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	kept := filepath.Join(tmp, "kept")
	if err := prune(ctx, tree, kept); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil { // only there when it is being updated
		return err
	}
	return os.Rename(kept, dir)
}

// download fetches the package into tmp and returns its path.
func download(ctx context.Context, cfg Config, series, tmp string) (string, error) {
	name, from := "", &apt.Apt{Dir: tmp}
	if cfg.Version == "" && cfg.Arch == runtime.GOARCH {
		// The machine's own apt knows its mirrors; it may have no lists at all.
		if n, err := newest(ctx, from, cfg.Arch); err == nil && strings.HasPrefix(n, "linux-image-"+series+".") {
			name = n
		}
	}
	if name == "" {
		var err error
		if from, err = apt.Private(ctx, tmp, cfg.Arch, suites[series]); err != nil {
			return "", err
		}
		if name, err = newest(ctx, from, cfg.Arch); err != nil {
			return "", err
		}
	}
	fmt.Fprintf(cfg.Log, "softroce: downloading %s into the cache (about 70 MB, once)\n", name)
	found, err := from.Download(ctx, name)
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("download %s: apt-get left %d packages, not one", name, len(found))
	}
	return found[0], nil
}

func newest(ctx context.Context, from *apt.Apt, arch string) (string, error) {
	out, err := from.Depends(ctx, meta(arch))
	if err != nil {
		return "", err
	}
	name := imagePackage(arch).Find(out)
	if name == nil {
		return "", fmt.Errorf("apt-cache knows no kernel that %s depends on", meta(arch))
	}
	return string(name), nil
}
