package kernel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func moduleDir(t *testing.T, dep, builtin string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "6.1.0-0-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "modules.dep"), dep)
	write(t, filepath.Join(dir, "modules.builtin"), builtin)
	return dir
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const someDep = `kernel/virtio_ring.ko:
kernel/virtio.ko.xz: kernel/virtio_ring.ko
kernel/virtio-pci.ko: kernel/virtio.ko.xz kernel/virtio_ring.ko
kernel/ib_core.ko:
kernel/rdma_rxe.ko: kernel/ib_core.ko
kernel/rdma_cm.ko: kernel/ib_core.ko
`

func TestOrder(t *testing.T) {
	m, err := ReadModules(moduleDir(t, someDep, "kernel/crypto/crc32_generic.ko\n"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Order("virtio_pci", "crc32-generic", "rdma_rxe", "rdma_cm", "virtio")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"kernel/virtio_ring.ko", "kernel/virtio.ko.xz", "kernel/virtio-pci.ko",
		"kernel/ib_core.ko", "kernel/rdma_rxe.ko", "kernel/rdma_cm.ko",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if _, err := m.Order("siw"); !errors.Is(err, ErrNoModule) || !strings.Contains(err.Error(), "siw") {
		t.Errorf("unknown module: %v", err)
	}
}

func TestOrderBroken(t *testing.T) {
	for name, dep := range map[string]string{
		"cycle":   "a.ko: b.ko\nb.ko: a.ko\n",
		"missing": "a.ko: b.ko\n",
	} {
		m, err := ReadModules(moduleDir(t, dep, ""))
		if err != nil {
			t.Fatal(err)
		}
		if order, err := m.Order("a"); err == nil {
			t.Errorf("%s: got %q and no error", name, order)
		}
	}
}

func TestGivenKernelWithoutRxe(t *testing.T) {
	dir := moduleDir(t, "kernel/ib_core.ko:\n", "")
	image := filepath.Join(dir, "vmlinuz")
	write(t, image, "")
	_, err := Find(context.Background(), Config{Image: image, Modules: dir, Cache: t.TempDir()})
	if !errors.Is(err, ErrNoModule) || !strings.Contains(err.Error(), "rdma_rxe") {
		t.Errorf("got %v", err)
	}
	if _, err := Find(context.Background(), Config{Image: image, Cache: t.TempDir()}); err == nil {
		t.Error("an image without modules was accepted")
	}
}

func TestArch(t *testing.T) {
	dir := moduleDir(t, someDep, "")
	image := filepath.Join(dir, "vmlinuz")
	head := make([]byte, 0x206)
	copy(head[0x38:], "ARMd")
	write(t, image, string(head))
	cfg := Config{Arch: "arm64", Image: image, Modules: dir, Cache: t.TempDir()}
	if _, err := Find(context.Background(), cfg); err != nil {
		t.Error(err)
	}
	cfg.Arch = "amd64"
	if _, err := Find(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "is for arm64, not amd64") {
		t.Errorf("an image of another architecture: %v", err)
	}
	if _, err := Find(context.Background(), Config{Arch: "mips", Cache: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "mips") {
		t.Errorf("an unknown architecture: %v", err)
	}
}

func TestGivenKernel(t *testing.T) {
	dir := moduleDir(t, someDep, "")
	image := filepath.Join(dir, "vmlinuz")
	write(t, image, "")
	k, err := Find(context.Background(), Config{Image: image, Modules: dir, Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if k.Release != "6.1.0-0-test" || k.Origin != "given" {
		t.Errorf("got %+v", k)
	}
}

func TestNewestPackage(t *testing.T) {
	for text, want := range map[string]string{
		"linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n":        "linux-image-6.1.0-56-amd64",
		"linux-image-amd64\n  Depends: linux-image-6.12.95+deb12-amd64\n":   "linux-image-6.12.95+deb12-amd64",
		"linux-image-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n":  "",
		"linux-image-amd64\n  Depends: linux-image-6.1.0-56-rt-amd64-dbg\n": "",
	} {
		if got := imagePackage("amd64").FindString(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestNeedNamesThePackages(t *testing.T) {
	err := Need(map[string]string{"softroce-no-such-a": "pkg-b", "softroce-no-such-b": "pkg-a", "sh": "dash"})
	want := "not installed: softroce-no-such-a, softroce-no-such-b; run: apt-get install -y --no-install-recommends pkg-a pkg-b"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
