package softroce

import (
	"fmt"

	"github.com/zrdma/zrdma/test/softroce/internal/guest"
	"github.com/zrdma/zrdma/test/softroce/internal/tsc"
)

const qemuProgram = "qemu-system-x86_64"

// Descriptors that QEMU inherits; the cards' follow.
const (
	fdAgent = 3 + iota
	fdInitrd
	fdCard
)

func qemuArgs(cfg Config, image, accel string, host int) []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-name", hostName(host), "-machine", "q35",
		"-smp", fmt.Sprint(cfg.CPUs), "-m", fmt.Sprint(cfg.MemoryMiB),
		"-kernel", image, "-initrd", fmt.Sprintf("/proc/self/fd/%d", fdInitrd),
		"-append", kernelArgs(accel),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-device", "virtio-serial-pci", "-chardev", fmt.Sprintf("socket,id=agent,fd=%d", fdAgent),
		"-device", "virtserialport,chardev=agent,name=" + guest.Port,
		"-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
		"-device", "virtio-9p-pci,fsdev=root,mount_tag=" + guest.RootTag,
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
	}
	if accel == "kvm" {
		// With this bit some nested hosts answer a write of MSR 0x10a with an abort.
		args = append(args, "-accel", "kvm", "-cpu", "max,-arch-capabilities")
	} else {
		args = append(args, "-accel", "tcg,thread=multi", "-cpu", "max")
	}
	for card := range cfg.Rxe {
		args = append(args,
			"-netdev", fmt.Sprintf("dgram,id=n%d,local.type=fd,local.str=%d", card, fdCard+card),
			// Without a speed rxe logs that it guesses one, at every query.
			"-device", fmt.Sprintf("virtio-net-pci,netdev=n%d,mac=%s,romfile=,speed=10000,duplex=full", card, mac(host, card)))
	}
	return args
}

func kernelArgs(accel string) string {
	// loglevel=5 puts warnings on the console, where they outlive the guest. A
	// message to the kernel's log must never be dropped: see Host.Dmesg.
	args := "console=ttyS0 quiet loglevel=5 panic=-1 reboot=t log_buf_len=4M printk.devkmsg=on net.ifnames=0"
	if accel == "tcg" {
		// An emulated processor that waits for a core of the host is not locked up.
		// All of them have one counter of time; without a word the kernel distrusts
		// it and asks the emulated HPET, which takes a system call and QEMU's lock.
		args += " tsc=reliable no_timer_check nowatchdog rcupdate.rcu_cpu_stall_timeout=300 mitigations=off"
		// no_timer_check: on a busy host the kernel took the timer for dead, and panicked.
		// It measures that counter by emulated timers. On a busy host it was wrong by
		// a factor of fifty, and every timeout in the guest with it. So it is told.
		if khz := tsc.KHz(); khz > 0 {
			args += fmt.Sprintf(" tsc_early_khz=%d", khz)
		}
	}
	return args
}
