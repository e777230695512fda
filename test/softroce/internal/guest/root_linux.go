package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", m.target, err)
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s (%s): %w", m.target, m.fstype, err)
	}
	return nil
}

func mountAll(ms []mount) error {
	for _, m := range ms {
		if err := m.do(); err != nil {
			return err
		}
	}
	return nil
}

func mountEarly() error {
	return mountAll([]mount{
		{"proc", "/proc", "proc", 0, ""},
		{"sysfs", "/sys", "sysfs", 0, ""},
		{"devtmpfs", "/dev", "devtmpfs", 0, "mode=0755"},
	})
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("load module: %w", err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", strings.TrimSuffix(filepath.Base(file), ".ko"), err)
	}
	return nil
}

// setupRoot makes the new root at /new and moves into it. Threads share their
// root folder, so the network's set-up may go on meanwhile: it uses /sys and
// /proc, which both roots have.
func setupRoot(cfg Config) error {
	// The host may change a file under us; that is the user's affair, and
	// cache=loose is what makes 9p fast enough.
	const opts = "trans=virtio,version=9p2000.L,msize=512000,cache=loose"
	mounts := []mount{
		{RootTag, "/lower", "9p", unix.MS_RDONLY, opts},
		{"tmpfs", "/rw", "tmpfs", 0, "size=75%"},
	}
	lower := "/lower"
	if cfg.Userland {
		// Its programs hide the host's of the same name, which would not run here.
		mounts = append(mounts, mount{UserlandTag, "/userland", "9p", unix.MS_RDONLY, opts})
		lower = "/userland:" + lower
	}
	if err := mountAll(mounts); err != nil {
		return err
	}
	for _, d := range []string{"/rw/upper", "/rw/work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return fmt.Errorf("make root: %w", err)
		}
	}
	err := mountAll([]mount{
		{"overlay", "/new", "overlay", 0, "lowerdir=" + lower + ",upperdir=/rw/upper,workdir=/rw/work"},
		{"proc", "/new/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "/new/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"devtmpfs", "/new/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"devpts", "/new/dev/pts", "devpts", 0, "mode=0620,ptmxmode=0666,gid=5"},
		{"tmpfs", "/new/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"tmpfs", "/new/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	})
	if err != nil {
		return err
	}
	// Nice to have; not every kernel has them.
	_ = mount{"debugfs", "/new/sys/kernel/debug", "debugfs", 0, ""}.do()
	_ = mount{"configfs", "/new/sys/kernel/config", "configfs", 0, ""}.do()
	if err := unix.Chroot("/new"); err != nil {
		return fmt.Errorf("move into the new root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("move into the new root: %w", err)
	}
	return furnish(cfg)
}

// furnish writes the few files in which the guest differs from the host.
func furnish(cfg Config) error {
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
	for _, n := range cfg.Names {
		fmt.Fprintf(&hosts, "%s %s\n", n.Addr, n.Name)
	}
	for name, text := range map[string]string{"/etc/hosts": hosts.String(), "/etc/hostname": cfg.Hostname + "\n"} {
		// Removed first: it may be a link to a file in the real /run.
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	for i, n := range []string{"stdin", "stdout", "stderr"} {
		_ = os.Symlink(fmt.Sprintf("/proc/self/fd/%d", i), "/dev/"+n) // EEXIST is fine
	}
	_ = os.Symlink("/proc/self/fd", "/dev/fd")
	for _, d := range []string{"/tmp", "/run/lock", "/dev/mqueue"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", d, err)
		}
	}
	for _, d := range []string{"/tmp", "/run/lock"} {
		if err := os.Chmod(d, 0o777|os.ModeSticky); err != nil {
			return fmt.Errorf("make %s: %w", d, err)
		}
	}
	dir := filepath.Join("/lib/modules", cfg.Release)
	if _, err := os.Stat(filepath.Join(dir, "modules.dep")); err == nil {
		return nil
	}
	// Kernel headers leave a folder without modules.
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("link %s: %w", dir, err)
	}
	if err := os.MkdirAll("/lib/modules", 0o755); err != nil {
		return fmt.Errorf("link %s: %w", dir, err)
	}
	if err := os.Symlink(cfg.ModulesDir, dir); err != nil {
		return fmt.Errorf("link %s: %w", dir, err)
	}
	return nil
}
