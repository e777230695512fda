package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Kernel is a kernel that has rdma_rxe.
type Kernel struct {
	Release string // as uname -r says, e.g. 6.1.0-56-amd64
	Image   string // path of vmlinuz
	Modules string // folder with modules.dep
	Origin  string // "host", "given" or "debian"
}

// Config says where to look. Its zero value means: the machine's own kernel if
// it has rdma_rxe and can be read, else Debian's.
type Config struct {
	// Arch is the processor's name in Go: "amd64" or "arm64". Default: this
	// machine's. The machine's own kernel serves no other.
	Arch    string
	Image   string    // a vmlinuz; Modules must be set too
	Modules string    // the folder with modules.dep that belongs to Image
	Version string    // "6.1" or "6.12": Debian's kernel of that series, not the machine's
	Cache   string    // default: CacheDir()
	Update  bool      // ask Debian again although the cache has a kernel
	Log     io.Writer // what takes long is said here; default: nowhere
}

// Archs are the architectures that a kernel can be had for.
var Archs = []string{"amd64", "arm64"}

// CacheDir is ${XDG_CACHE_HOME:-~/.cache}/zrdma/softroce.
func CacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("kernel: no cache folder: %w; set XDG_CACHE_HOME", err)
	}
	return filepath.Join(base, "zrdma", "softroce"), nil
}

// Find returns a kernel and proves that it has rdma_rxe.
func Find(ctx context.Context, cfg Config) (*Kernel, error) {
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	if cfg.Arch == "" {
		cfg.Arch = runtime.GOARCH
	}
	if !slices.Contains(Archs, cfg.Arch) {
		return nil, fmt.Errorf("kernel: architecture %q is not one of %s", cfg.Arch, strings.Join(Archs, ", "))
	}
	if cfg.Cache == "" {
		dir, err := CacheDir()
		if err != nil {
			return nil, err
		}
		cfg.Cache = dir
	}
	switch {
	case cfg.Image != "" || cfg.Modules != "":
		return given(cfg)
	case cfg.Version == "" && cfg.Arch == runtime.GOARCH:
		k, why := host("/")
		if why == nil {
			return k, nil
		}
		k, err := debian(ctx, cfg)
		if err != nil {
			return nil, fmt.Errorf("%w (the machine's own kernel: %w)", err, why)
		}
		return k, nil
	}
	return debian(ctx, cfg)
}

func given(cfg Config) (*Kernel, error) {
	if cfg.Image == "" || cfg.Modules == "" {
		return nil, errors.New("kernel: an image and a modules folder must be given together")
	}
	if arch := imageArch(cfg.Image); arch != "" && arch != cfg.Arch {
		return nil, fmt.Errorf("kernel: %s is for %s, not %s", cfg.Image, arch, cfg.Arch)
	}
	dir, err := filepath.Abs(cfg.Modules)
	if err != nil {
		return nil, fmt.Errorf("kernel: modules folder: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "modules.dep")); err != nil {
		// The root of a tree, as dpkg -x leaves it, is as good.
		if found, _ := filepath.Glob(filepath.Join(dir, "lib/modules/*/modules.dep")); len(found) == 1 {
			dir = filepath.Dir(found[0])
		}
	}
	return check(&Kernel{Release: filepath.Base(dir), Image: cfg.Image, Modules: dir, Origin: "given"})
}

// host looks at the machine's own kernel below root.
func host(root string) (*Kernel, error) {
	out, err := exec.Command("uname", "-r").Output()
	if err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	rel := strings.TrimSpace(string(out))
	dir := filepath.Join(root, "lib/modules", rel)
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("%s has no modules folder", rel)
	}
	k := &Kernel{Release: rel, Modules: dir, Origin: "host"}
	for _, p := range []string{filepath.Join(root, "boot/vmlinuz-"+rel), filepath.Join(dir, "vmlinuz")} {
		k.Image = p
		if readable(p) == nil {
			return check(k)
		}
	}
	return nil, fmt.Errorf("%s: its vmlinuz cannot be read (try root)", rel)
}

// check refuses a kernel that could not do its work, before anything boots.
func check(k *Kernel) (*Kernel, error) {
	if err := readable(k.Image); err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	m, err := ReadModules(k.Modules)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w; run depmod for it", err)
	}
	if err != nil {
		return nil, err
	}
	if !m.Has("rdma_rxe") {
		return nil, fmt.Errorf("kernel: %s has no rdma_rxe: %w (cloud kernels leave it out)", k.Release, ErrNoModule)
	}
	return k, nil
}

// imageArch is "" of an image that does not say.
func imageArch(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, 0x206)
	if _, err := io.ReadFull(f, head); err != nil {
		return ""
	}
	switch {
	case string(head[0x38:0x3c]) == "ARMd": // see Documentation/arm64/booting.rst
		return "arm64"
	case string(head[0x202:0x206]) == "HdrS": // see Documentation/x86/boot.rst
		return "amd64"
	}
	return ""
}

func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}
