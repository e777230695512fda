package softroce

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/zrdma/zrdma/test/softroce/kernel"
)

const (
	modulePath  = "github.com/zrdma/zrdma"
	initPackage = modulePath + "/test/softroce/internal/guest/init"
)

// guestBinary returns the file of the guest's init, building it if the cache
// does not have it for these sources and this Go.
func guestBinary(ctx context.Context, cfg Config, arch string) (string, error) {
	if cfg.Init != "" {
		is, err := elfArch(cfg.Init)
		if err != nil || is == arch {
			return cfg.Init, err
		}
	}
	dir, err := sourceDir()
	if err != nil {
		return "", err
	}
	key, err := sourceKey(dir, arch)
	if err != nil {
		return "", fmt.Errorf("guest init: %w", err)
	}
	cache := filepath.Join(cfg.Kernel.Cache, "init")
	file := filepath.Join(cache, key)
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	unlock, err := kernel.Lock(ctx, filepath.Join(cache, "lock"), cfg.Log)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	// Older builds, and what a killed build left, are of no use any more. A VM
	// that boots meanwhile has read its own.
	old, err := filepath.Glob(filepath.Join(cache, "init-"+arch+"-*"))
	if err != nil {
		return "", err
	}
	for _, f := range old {
		if err := os.RemoveAll(f); err != nil {
			return "", fmt.Errorf("guest init: %w", err)
		}
	}
	tmp := file + ".tmp"
	if err := buildInit(ctx, dir, arch, tmp); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, file); err != nil {
		return "", fmt.Errorf("guest init: %w", err)
	}
	return file, nil
}

// elfArch is what architecture a program is for.
func elfArch(file string) (string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", fmt.Errorf("guest init: %w", err)
	}
	defer f.Close()
	switch f.Machine {
	case elf.EM_X86_64:
		return "amd64", nil
	case elf.EM_AARCH64:
		return "arm64", nil
	}
	return "", fmt.Errorf("guest init: %s is a program for %s", file, f.Machine)
}

func buildInit(ctx context.Context, dir, arch, out string) error {
	gotool, err := exec.LookPath("go")
	if err != nil {
		return errors.New("guest init: the go tool is needed to build it and is not in PATH; or name a prebuilt one with -init")
	}
	cmd := exec.CommandContext(ctx, gotool, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, initPackage)
	cmd.Dir = dir
	// The settings of the caller's build, of a cross-compilation say, are not ours.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=-mod=readonly", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("guest init: go build: %w\n%s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

// sourceDir finds this package's sources: where the compiler read them, or, in
// a binary built with -trimpath, where the go tool finds them from here.
func sourceDir() (string, error) {
	_, file, _, _ := runtime.Caller(0)
	if dir := filepath.Dir(file); filepath.IsAbs(file) {
		if _, err := os.Stat(file); err == nil {
			return dir, nil
		}
	}
	if out, err := exec.Command("go", "list", "-f", "{{.Dir}}", modulePath+"/test/softroce").Output(); err == nil {
		return strings.TrimSpace(string(out)), nil
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Path == modulePath && strings.HasPrefix(info.Main.Version, "v") {
		out, err := exec.Command("go", "mod", "download", "-json", modulePath+"@"+info.Main.Version).Output()
		if i := bytes.Index(out, []byte(`"Dir": "`)); err == nil && i >= 0 {
			dir, _, _ := strings.Cut(string(out[i+len(`"Dir": "`):]), `"`)
			return filepath.Join(dir, "test", "softroce"), nil
		}
	}
	return "", errors.New("guest init: its sources are not here; name a prebuilt one with -init")
}

// sourceKey hashes what the guest's binary is made of.
func sourceKey(dir, arch string) (string, error) {
	var files []string
	for _, p := range []string{"internal/agent/*.go", "internal/guest/*.go", "internal/guest/init/*.go", "../../go.mod", "../../go.sum"} {
		found, err := filepath.Glob(filepath.Join(dir, p))
		if err != nil {
			return "", err
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), arch)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, filepath.Base(name))
		_, err = io.Copy(h, f)
		_ = f.Close() // only read
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("init-%s-%x", arch, h.Sum(nil)[:8]), nil
}
