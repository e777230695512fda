package softroce

import (
	"fmt"

	"github.com/zrdma/zrdma/test/softroce/internal/guest"
)

// Descriptors that QEMU inherits; the cards' follow.
const (
	fdAgent = 3 + iota
	fdInitrd
	fdMonitor
	fdCard
)

func (p *platform) qemuArgs(cfg Config, accel string, host int) ([]string, error) {
	cpu := p.kvmCPU
	if accel == "tcg" {
		accel, cpu = "tcg,thread=multi", p.tcgCPU
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-name", hostName(host), "-machine", p.machine, "-accel", accel, "-cpu", cpu,
		"-smp", fmt.Sprint(cfg.CPUs), "-m", fmt.Sprint(cfg.MemoryMiB),
		"-kernel", p.initrd.kernel.Image, "-initrd", fmt.Sprintf("/proc/self/fd/%d", fdInitrd),
		"-append", p.kernelLine(accel),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-device", "virtio-serial-pci", "-chardev", fmt.Sprintf("socket,id=agent,fd=%d", fdAgent),
		"-device", "virtserialport,chardev=agent,name=" + guest.Port,
		"-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", fdMonitor), "-mon", "chardev=monitor,mode=control",
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
	}
	args = append(args, sharedFolder("root", "/", guest.RootTag)...)
	if p.root != "" {
		args = append(args, sharedFolder("user", p.root, guest.UserlandTag)...)
	}
	for card := range cfg.Rxe {
		args = append(args,
			"-netdev", fmt.Sprintf("dgram,id=n%d,local.type=fd,local.str=%d", card, fdCard+card),
			// Without a speed rxe logs that it guesses one, at every query.
			"-device", fmt.Sprintf("virtio-net-pci,netdev=n%d,mac=%s,romfile=,speed=10000,duplex=full", card, mac(host, card)))
	}
	tables := cfg.Machines[host].SMBIOS
	if len(tables) > 0 && p.firmware != nil {
		f, err := p.findFirmware()
		if err != nil {
			return nil, err
		}
		args = append(args, "-bios", f)
	}
	for _, t := range tables {
		args = append(args, "-smbios", t)
	}
	return args, nil
}

// sharedFolder is a folder of this machine that the guest can mount, for reading.
func sharedFolder(id, path, tag string) []string {
	return []string{
		"-fsdev", fmt.Sprintf("local,id=%s,path=%s,security_model=none,readonly=on,multidevs=remap", id, path),
		"-device", fmt.Sprintf("virtio-9p-pci,fsdev=%s,mount_tag=%s", id, tag),
	}
}

func (p *platform) kernelLine(accel string) string {
	// loglevel=5 puts warnings on the console, where they outlive the guest. A
	// message to the kernel's log must never be dropped: see Host.Dmesg.
	line := "console=" + p.console + " quiet loglevel=5 panic=-1 log_buf_len=4M printk.devkmsg=on net.ifnames=0 " + p.kernelArgs
	if accel != "kvm" {
		// An emulated processor that waits for a core of the host is not locked up.
		line += " nowatchdog rcupdate.rcu_cpu_stall_timeout=300 mitigations=off " + p.tcgArgs()
	}
	return line
}
