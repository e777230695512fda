package softroce

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"github.com/zrdma/zrdma/test/softroce/internal/tsc"
	"github.com/zrdma/zrdma/test/softroce/kernel"
	"github.com/zrdma/zrdma/test/softroce/userland"
)

// target is how QEMU emulates an architecture.
type target struct {
	qemu, debian string        // the program and its package
	machine      string        // of -machine
	kvmCPU       string        // of -cpu
	tcgCPU       string        //
	console      string        // the kernel's name of the serial line
	kernelArgs   string        //
	tcgArgs      func() string // for the kernel when it is emulated
	firmware     []string      // what -smbios needs besides, first found; nil: nothing
	firmwarePkg  string
}

var targets = map[string]target{
	"amd64": {
		qemu: "qemu-system-x86_64", debian: "qemu-system-x86", machine: "q35", console: "ttyS0", kernelArgs: "reboot=t",
		// With this bit some nested hosts answer a write of MSR 0x10a with an abort.
		kvmCPU: "max,-arch-capabilities", tcgCPU: "max",
		tcgArgs: tscArgs,
	},
	"arm64": {
		qemu: "qemu-system-aarch64", debian: "qemu-system-arm", machine: "virt", console: "ttyAMA0",
		// The cores of a BlueField-3 are A78; the A76 has the same instructions as far
		// as software here sees, and none that are slow to emulate.
		kvmCPU: "host", tcgCPU: "cortex-a76",
		firmware: []string{
			"/usr/share/qemu-efi-aarch64/QEMU_EFI.fd", "/usr/share/edk2/aarch64/QEMU_EFI.fd", "/usr/share/AAVMF/AAVMF_CODE.fd",
		},
		firmwarePkg: "qemu-efi-aarch64",
		tcgArgs:     func() string { return "" }, // its counter says how fast it is
	},
}

// tscArgs are about the counter of time. All emulated processors have one;
// without a word the kernel distrusts it and asks the emulated HPET, which takes a
// system call and QEMU's lock.
func tscArgs() string {
	// no_timer_check: on a busy host the kernel took the timer for dead, and panicked.
	args := "tsc=reliable no_timer_check"
	// It measures that counter by emulated timers. On a busy host it was wrong by a
	// factor of fifty, and every timeout in the guest with it. So it is told.
	if khz := tsc.KHz(); khz > 0 {
		args += fmt.Sprintf(" tsc_early_khz=%d", khz)
	}
	return args
}

// platform is what all VMs of one architecture share.
type platform struct {
	arch string
	target
	initrd *initrd
	root   string // the folder of a userland to lay over this machine's; "" for none
}

func newPlatform(ctx context.Context, cfg Config, arch string) (*platform, error) {
	p := &platform{arch: arch, target: targets[arch]}
	if err := kernel.Need(map[string]string{p.qemu: p.debian}); err != nil {
		return nil, err
	}
	p.qemu = kernel.Program(p.qemu)
	kc := cfg.Kernel
	if arch != cfg.Kernel.Arch {
		kc.Arch, kc.Image, kc.Modules = arch, "", ""
	}
	k, err := kernel.Find(ctx, kc)
	if err != nil {
		return nil, err
	}
	bin, err := guestBinary(ctx, cfg, arch)
	if err != nil {
		return nil, err
	}
	if p.initrd, err = newInitrd(ctx, k, bin); err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	if p.foreign() {
		p.root, err = userland.Find(ctx, userland.Config{Arch: arch, Cache: cfg.Kernel.Cache, Log: cfg.Log})
	}
	return p, err
}

// foreign says that this machine's programs do not run on it, nor KVM.
func (p *platform) foreign() bool { return p.arch != runtime.GOARCH }

func (t target) findFirmware() (string, error) {
	for _, f := range t.firmware {
		if _, err := os.Stat(f); err == nil {
			return f, nil
		}
	}
	return "", fmt.Errorf("no UEFI firmware, which SMBIOS needs; run: apt-get install -y --no-install-recommends %s", t.firmwarePkg)
}
