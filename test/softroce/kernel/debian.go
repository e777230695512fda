package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// meta is the package that depends on the newest ordinary kernel. The cloud and
// rt flavours have other names; the cloud flavour has no rxe.
const meta = "linux-image-amd64"

var imagePackage = regexp.MustCompile(`\blinux-image-([0-9][0-9A-Za-z.+~]*(?:-[0-9]+)?-amd64)\b`)

// suites says where a series lives when the machine's own apt is not asked.
var suites = map[string][]string{
	"6.1": {
		"http://deb.debian.org/debian bookworm main",
		"http://deb.debian.org/debian-security bookworm-security main",
	},
	"6.12": {"http://deb.debian.org/debian bookworm-backports main"},
}

// debian returns Debian's kernel from the cache and fills it if needed.
func debian(ctx context.Context, cfg Config) (*Kernel, error) {
	series := cfg.Version
	if series == "" {
		series = "6.1"
	}
	if suites[series] == nil {
		return nil, fmt.Errorf("kernel: no Debian kernel %q is known: use 6.1 or 6.12, or name an image and its modules", series)
	}
	root := filepath.Join(cfg.Cache, "kernels")
	dir := filepath.Join(root, "debian-"+series)
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
		return nil, fmt.Errorf("kernel: Debian's %s kernel: %w", series, err)
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
	if _, err := run(ctx, tmp, nil, "dpkg-deb", "-x", deb, tree); err != nil {
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
	name, env := "", []string(nil)
	if cfg.Version == "" {
		// The machine's own apt knows its mirrors; it may have no lists at all.
		if n, err := newest(ctx, tmp, nil); err == nil && strings.HasPrefix(n, "linux-image-"+series+".") {
			name = n
		}
	}
	if name == "" {
		var err error
		if env, err = privateApt(ctx, tmp, suites[series]); err != nil {
			return "", err
		}
		if name, err = newest(ctx, tmp, env); err != nil {
			return "", err
		}
	}
	fmt.Fprintf(cfg.Log, "softroce: downloading %s into the cache (about 70 MB, once)\n", name)
	_, err := run(ctx, tmp, env, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name)
	if err != nil {
		return "", fmt.Errorf("download %s: %w", name, err)
	}
	found, err := filepath.Glob(filepath.Join(tmp, "linux-image-*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("download %s: apt-get left %d packages, not one", name, len(found))
	}
	return found[0], nil
}

func newest(ctx context.Context, tmp string, env []string) (string, error) {
	out, err := run(ctx, tmp, env, "apt-cache", "depends", meta)
	if err != nil {
		return "", err
	}
	name := imagePackage.Find(out)
	if name == nil {
		return "", fmt.Errorf("apt-cache knows no kernel that %s depends on", meta)
	}
	return string(name), nil
}

// privateApt makes an apt configuration that touches nothing of the machine's
// and reads only its keys, and returns the environment that selects it.
func privateApt(ctx context.Context, tmp string, lines []string) ([]string, error) {
	const keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
	if readable(keys) != nil {
		return nil, errors.New("no debian-archive-keyring; run: apt-get install -y --no-install-recommends debian-archive-keyring")
	}
	for _, d := range []string{"apt/lists/partial", "apt/cache/archives/partial", "apt/state"} {
		if err := os.MkdirAll(filepath.Join(tmp, d), 0o755); err != nil {
			return nil, err
		}
	}
	var sources strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&sources, "deb [arch=amd64 signed-by=%s] %s\n", keys, l)
	}
	conf := strings.ReplaceAll(`Dir::Etc::sourcelist "TMP/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "-";
Dir::State "TMP/state";
Dir::State::lists "TMP/lists";
Dir::State::status "/dev/null";
Dir::Cache "TMP/cache";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
`, "TMP", filepath.Join(tmp, "apt"))
	if err := os.WriteFile(filepath.Join(tmp, "apt/sources.list"), []byte(sources.String()), 0o644); err != nil {
		return nil, err
	}
	file := filepath.Join(tmp, "apt/apt.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	env := []string{"APT_CONFIG=" + file}
	if _, err := run(ctx, tmp, env, "apt-get", "-q", "update"); err != nil {
		return nil, fmt.Errorf("private apt lists: %w", err)
	}
	return env, nil
}

func run(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, Program(name), args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
