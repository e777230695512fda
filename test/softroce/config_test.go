package softroce

import (
	"bytes"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/zrdma/zrdma/test/softroce/internal/guest"
	"github.com/zrdma/zrdma/test/softroce/kernel"
)

// A new field must be given a default here, or be said to have none.
func TestDefaults(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	got, err := Config{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"Hosts": 1, "CPUs": 2, "MemoryMiB": 2048, "MTU": 4200, "Rxe": 1, "BootTimeout": 2 * time.Minute,
		"Arch": runtime.GOARCH, "Machines": map[int]Machine(nil), "Accel": "", "Init": "", "Seed": uint64(0), "Pcap": "", "NoRxe": []int(nil),
	}
	v := reflect.ValueOf(got)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		w, ok := want[name]
		switch {
		case name == "Log" || name == "Kernel":
			if v.Field(i).IsZero() {
				t.Errorf("%s has no default", name)
			}
		case !ok:
			t.Errorf("%s is not covered", name)
		case !reflect.DeepEqual(v.Field(i).Interface(), w):
			t.Errorf("%s is %v, want %v", name, v.Field(i).Interface(), w)
		}
	}
}

func TestBadConfig(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	for want, cfg := range map[string]Config{
		"Hosts":       {Hosts: 17},
		"CPUs":        {CPUs: -1},
		"MemoryMiB":   {MemoryMiB: 10},
		"MTU":         {MTU: 10000},
		"Rxe":         {Rxe: 5},
		"NoRxe":       {NoRxe: []int{1}},
		"Accel":       {Accel: "hvf"},
		"BootTimeout": {BootTimeout: -1},
		"Arch":        {Arch: "mips"},
		"host 1":      {Hosts: 2, Machines: map[int]Machine{1: {Arch: "mips"}}},
		"Machines":    {Machines: map[int]Machine{1: {}}},
		"KVM cannot":  {Accel: "kvm", Hosts: 2, Machines: map[int]Machine{0: {Arch: "amd64"}, 1: {Arch: "arm64"}}},
	} {
		if _, err := cfg.withDefaults(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestGuestConfig(t *testing.T) {
	g := guestConfig(Config{Hosts: 2, Rxe: 2, MTU: 4200}, 1)
	if n := g.NICs[1]; n.MAC != "52:54:00:77:01:02" || n.Name != "eth1" || n.Rxe != "rxe1" ||
		!reflect.DeepEqual(n.Addrs, []string{"10.78.0.2/24", "fd78::2/64"}) {
		t.Errorf("second card: %+v", n)
	}
	if len(g.Names) != 8 || g.Names[0].Name != "host0" || g.Names[0].Addr != "10.77.0.1" || g.Names[7].Name != "host1-1-v6" {
		t.Errorf("names: %+v", g.Names)
	}
	for h, rxe := range []string{"rxe0", ""} {
		if n := guestConfig(Config{Hosts: 2, Rxe: 1, NoRxe: []int{1}}, h).NICs[0]; n.Rxe != rxe || n.Name != "eth0" {
			t.Errorf("host %d with host 1 without rxe: %+v", h, n)
		}
	}
	rd := initrd{kernel: &kernel.Kernel{}, modules: []string{"/m/ib_core.ko", "/m/rdma_rxe.ko"}}
	for _, rxe := range []string{"rxe0", ""} {
		b, err := rd.forHost(guest.Config{NICs: []guest.NIC{{Rxe: rxe}}})
		if err != nil || bytes.Contains(b, []byte("rdma_rxe")) != (rxe != "") {
			t.Errorf("modules of a host with the device %q: %q, %v", rxe, b, err)
		}
	}
}

func TestQemuArgs(t *testing.T) {
	cfg, err := Config{Rxe: 2, Kernel: kernel.Config{Cache: t.TempDir()}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Machines = map[int]Machine{1: {SMBIOS: []string{"type=1,product=X"}}}
	args := func(arch, root string, host int) string {
		p := &platform{arch: arch, target: targets[arch], root: root, initrd: &initrd{kernel: &kernel.Kernel{Image: "vmlinuz"}}}
		if arch == "arm64" {
			p.firmware = []string{os.DevNull}
		}
		a, err := p.qemuArgs(cfg, "tcg", host)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(a, " ")
	}
	native, foreign := args("amd64", "", 1), args("arm64", "/u", 1)
	for _, want := range []string{"local.str=6", "local.str=7", "-accel tcg,thread=multi", "-smp 2", "/proc/self/fd/4", "fd=3", "-smbios type=1,product=X"} {
		for _, a := range []string{native, foreign} {
			if !strings.Contains(a, want) {
				t.Errorf("no %q in %s", want, a)
			}
		}
	}
	for _, want := range []string{"path=/u,", "console=ttyAMA0", "-machine virt", "-bios " + os.DevNull} {
		if !strings.Contains(foreign, want) || strings.Contains(native, want) {
			t.Errorf("%q must be for arm64 only:\n%s\n%s", want, native, foreign)
		}
	}
	if a := args("arm64", "/u", 0); strings.Contains(a, "-bios") || strings.Contains(a, "-smbios") {
		t.Errorf("host 0 has no tables, but %s", a)
	}
}

func TestRememberAccel(t *testing.T) {
	cache := t.TempDir()
	if got := recallAccel(cache, "k"); got != "" {
		t.Errorf("from nothing: %q", got)
	}
	for _, a := range []string{"kvm", "tcg"} {
		if err := rememberAccel(cache, "k", a); err != nil {
			t.Fatal(err)
		}
		if got := recallAccel(cache, "k"); got != a {
			t.Errorf("got %q, want %q", got, a)
		}
	}
	for range 2 {
		if err := ForgetAccel(cache); err != nil {
			t.Fatal(err)
		}
	}
	if got := recallAccel(cache, "k"); got != "" {
		t.Errorf("after Forget: %q", got)
	}
}
