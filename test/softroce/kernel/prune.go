package kernel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/zrdma/zrdma/test/softroce/internal/apt"
)

// keepDirs and keepNames are the modules a test of RDMA code may want to load
// in the guest, besides those the guest boots with. What they need is kept too.
var keepDirs = []string{
	"crypto", "lib", "arch/x86/crypto", "arch/arm64/crypto", "drivers/virtio",
	"drivers/infiniband/core", "drivers/infiniband/sw", "drivers/infiniband/ulp",
	"drivers/nvme", "fs/9p", "fs/configfs", "fs/overlayfs",
	"net/9p", "net/8021q", "net/bridge", "net/core", "net/ipv4", "net/ipv6", "net/netfilter",
	"net/packet", "net/psample", "net/rds", "net/sched", "net/smc", "net/sunrpc",
}

var keepNames = []string{
	"virtio_net", "virtio_console", "virtio_rng", "dummy", "veth", "bonding", "macvlan", "tun", "ifb", "null_blk", "loop", "brd", "nfs", "nfsd",
}

// prune copies vmlinuz and the wanted modules, unpacked, from a package's tree
// to dst and indexes them.
func prune(ctx context.Context, tree, dst string) error {
	dirs, err := filepath.Glob(filepath.Join(tree, "lib/modules/*"))
	if err != nil || len(dirs) != 1 {
		return fmt.Errorf("the package has %d folders in lib/modules, not one", len(dirs))
	}
	release := filepath.Base(dirs[0])
	if _, err := apt.Run(ctx, tree, nil, Program("depmod"), "-b", tree, release); err != nil {
		return err
	}
	m, err := ReadModules(dirs[0])
	if err != nil {
		return err
	}
	var names []string
	for name, path := range m.byName {
		if wanted(path) {
			names = append(names, name)
		}
	}
	files, err := m.Order(names...)
	if err != nil {
		return err
	}
	out := filepath.Join(dst, "lib/modules", release)
	for _, rel := range files {
		data, err := ReadModule(ctx, filepath.Join(dirs[0], rel))
		if err != nil {
			return err
		}
		to := filepath.Join(out, rel[:strings.Index(rel, ".ko")]+".ko")
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"} {
		data, err := os.ReadFile(filepath.Join(dirs[0], name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, name), data, 0o644); err != nil {
			return err
		}
	}
	if _, err := apt.Run(ctx, dst, nil, Program("depmod"), "-b", dst, release); err != nil {
		return err
	}
	return os.Rename(filepath.Join(tree, "boot/vmlinuz-"+release), filepath.Join(dst, "vmlinuz"))
}

func wanted(path string) bool {
	rel := strings.TrimPrefix(path, "kernel/")
	for _, d := range keepDirs {
		if strings.HasPrefix(rel, d+"/") {
			return true
		}
	}
	name := moduleName(path)
	for _, n := range keepNames {
		if name == n {
			return true
		}
	}
	return false
}
