package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

func sorted(l []string) []string {
	slices.Sort(l)
	return l
}

// drivers that carry RDMA in a module of their own, by the driver of the card.
var rdmaModule = map[string]string{
	"mlx5_core": "mlx5_ib", "mlx4_core": "mlx4_ib", "bnxt_en": "bnxt_re", "ice": "irdma", "i40e": "irdma",
	"cxgb4": "iw_cxgb4", "qede": "qedr", "hns3": "hns_roce", "ionic": "ionic_rdma",
}

func (e *exam) modules() {
	for _, c := range e.inv.Cards {
		for _, f := range c.Functions {
			m := rdmaModule[f.Driver.Value]
			if f.Remote || m == "" || f.RDMA.Known() || e.exists("sys/module/"+m) {
				continue
			}
			e.find(Broken, "modules", f.Name(), fmt.Sprintf("its driver is %s, and the RDMA part %s is not loaded", f.Driver.Value, m), "modprobe "+m)
		}
	}
	if !e.exists("sys/module/ib_uverbs") && !e.exists("sys/class/infiniband_verbs") {
		e.find(Broken, "modules", "ib_uverbs", "programs cannot reach RDMA devices: the module is not loaded", "modprobe ib_uverbs")
	}
	if len(e.inv.RDMA) == 0 {
		e.find(Broken, "devices", "RDMA devices", "the kernel has none (the software device soft:127.0.0.1 needs none)",
			"modprobe rdma_rxe && rdma link add rxe0 type rxe netdev NETDEV")
		return
	}
	if !e.exists("sys/class/misc/rdma_cm") && !e.exists("sys/module/rdma_ucm") {
		e.find(Broken, "modules", "rdma_ucm", "the connection manager (rdma_cm) is not there for programs", "modprobe rdma_ucm")
	}
}

// nodes checks that this user can open what RDMA needs.
func (e *exam) nodes() {
	if len(e.inv.RDMA) == 0 {
		return
	}
	nodes := []string{}
	for _, n := range e.list("sys/class/infiniband_verbs") {
		if strings.HasPrefix(n, "uverbs") {
			nodes = append(nodes, "dev/infiniband/"+n)
		}
	}
	nodes = append(nodes, "dev/infiniband/rdma_cm")
	for _, n := range nodes {
		err := e.cfg.Open(n)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrPermission):
			rule := `SUBSYSTEM=="infiniband_verbs"`
			if strings.HasSuffix(n, "rdma_cm") {
				rule = `KERNEL=="rdma_cm"`
			}
			e.find(Broken, "permissions", "/"+n, "this user may not open it",
				"echo '"+rule+`, MODE="0666"' >> /etc/udev/rules.d/90-rdma.rules && udevadm control --reload && udevadm trigger`)
		case errors.Is(err, fs.ErrNotExist):
			e.find(Broken, "permissions", "/"+n, "it does not exist; in a container, pass it with --device=/dev/infiniband", "udevadm trigger --subsystem-match=infiniband_verbs --subsystem-match=misc")
		default:
			e.find(Broken, "permissions", "/"+n, "it does not open: "+err.Error(), "dmesg | grep -i infiniband")
		}
	}
}

// enough locked memory for the default pools and a few thousand queue pairs.
const enoughLocked = 1 << 30

func (e *exam) lockedMemory() {
	l, err := e.cfg.Memlock()
	if err != nil || l.Unlimited || l.Bytes >= enoughLocked {
		return
	}
	level := Slow
	if l.Bytes < 1<<20 {
		level = Broken
	}
	e.find(level, "locked-memory", "RLIMIT_MEMLOCK", fmt.Sprintf("%d KiB may be locked; registered memory counts", l.Bytes>>10),
		"ulimit -l unlimited   # for a service LimitMEMLOCK=infinity, for users /etc/security/limits.conf")
}

func (e *exam) hugePages() {
	const dir = "sys/kernel/mm/hugepages"
	sizes := e.list(dir)
	for _, s := range sizes {
		if n, ok := e.number(dir + "/" + s + "/nr_hugepages"); !ok || n > 0 {
			return
		}
	}
	if len(sizes) > 0 {
		e.find(Note, "huge-pages", "/"+dir, "none are reserved; large regions on small pages take longer to register and miss the card's translation cache",
			"sysctl -w vm.nr_hugepages=512")
	}
}

func (e *exam) warnings() {
	for _, w := range e.inv.Warnings {
		e.find(Note, "inventory", "inventory", w, "zrdma devices --tree --evidence")
	}
}
