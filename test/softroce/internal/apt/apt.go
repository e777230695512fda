package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Suites lists where a Debian release lives, in the form of sources.list, without
// the options.
var Suites = map[string][]string{
	"bookworm": {
		"http://deb.debian.org/debian bookworm main",
		"http://deb.debian.org/debian-security bookworm-security main",
	},
	"bookworm-backports": {"http://deb.debian.org/debian bookworm-backports main"},
}

const keys = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Apt is an apt for one architecture. The zero value, with Dir, is the machine's own.
type Apt struct {
	Dir string   // where downloads go
	env []string // selects the configuration
}

// Private makes an apt for arch in dir, with fresh lists of the named suites. It
// knows of no installed package, so that Closure fetches all that is needed.
func Private(ctx context.Context, dir, arch string, suites ...string) (*Apt, error) {
	if _, err := os.Stat(keys); err != nil {
		return nil, errors.New("no debian-archive-keyring; run: apt-get install -y --no-install-recommends debian-archive-keyring")
	}
	top := filepath.Join(dir, "apt")
	for _, d := range []string{"lists/partial", "cache/archives/partial", "state", "parts"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o755); err != nil {
			return nil, err
		}
	}
	var sources strings.Builder
	for _, s := range suites {
		for _, l := range Suites[s] {
			fmt.Fprintf(&sources, "deb [arch=%s signed-by=%s] %s\n", arch, keys, l)
		}
	}
	conf := strings.NewReplacer("TOP", top, "ARCH", arch).Replace(`Dir::Etc::sourcelist "TOP/sources.list";
Dir::Etc::sourceparts "TOP/parts";
Dir::Etc::preferences "TOP/none";
Dir::Etc::preferencesparts "TOP/parts";
Dir::State "TOP/state";
Dir::State::lists "TOP/lists";
Dir::State::status "/dev/null";
Dir::Cache "TOP/cache";
APT::Architecture "ARCH";
APT::Architectures "ARCH";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
`)
	if err := os.WriteFile(filepath.Join(top, "sources.list"), []byte(sources.String()), 0o644); err != nil {
		return nil, err
	}
	file := filepath.Join(top, "apt.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	a := &Apt{Dir: dir, env: []string{"APT_CONFIG=" + file}}
	if _, err := a.run(ctx, "apt-get", "-q", "update"); err != nil {
		return nil, fmt.Errorf("private apt lists: %w", err)
	}
	return a, nil
}

// Depends is what apt-cache says that a package depends on.
func (a *Apt) Depends(ctx context.Context, pkg string) ([]byte, error) {
	return a.run(ctx, "apt-cache", "depends", pkg)
}

// Download fetches packages, nothing else, and returns their files.
func (a *Apt) Download(ctx context.Context, pkgs ...string) ([]string, error) {
	args := append([]string{"-q", "-o", "APT::Sandbox::User=root", "download"}, pkgs...)
	if _, err := a.run(ctx, "apt-get", args...); err != nil {
		return nil, fmt.Errorf("download %s: %w", strings.Join(pkgs, " "), err)
	}
	return filepath.Glob(filepath.Join(a.Dir, "*.deb"))
}

// Closure fetches packages with all that they depend on and returns their files.
// Only for a private apt.
func (a *Apt) Closure(ctx context.Context, pkgs ...string) ([]string, error) {
	args := append([]string{"-q", "-y", "install", "--download-only", "--no-install-recommends"}, pkgs...)
	if _, err := a.run(ctx, "apt-get", args...); err != nil {
		return nil, fmt.Errorf("download %s: %w", strings.Join(pkgs, " "), err)
	}
	return filepath.Glob(filepath.Join(a.Dir, "apt/cache/archives/*.deb"))
}

func (a *Apt) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	return Run(ctx, a.Dir, a.env, name, args...)
}

// Run runs a program in dir and returns its output; its error has what it said.
func Run(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(name), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
