package doctor

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/zrdma/zrdma/dpu"
)

// cpus reads a list such as 0-3,8; false when it is none.
func cpus(s string) (map[int]bool, bool) {
	out := map[int]bool{}
	for _, part := range strings.Split(s, ",") {
		a, b, isRange := strings.Cut(strings.TrimSpace(part), "-")
		lo, err := strconv.Atoi(a)
		hi := lo
		if isRange && err == nil {
			hi, err = strconv.Atoi(b)
		}
		if err != nil || lo < 0 || hi < lo || hi > 1<<16 {
			return nil, false
		}
		for ; lo <= hi; lo++ {
			out[lo] = true
		}
	}
	return out, true
}

func (e *exam) numa() {
	allowed := ""
	for _, line := range strings.Split(e.text("proc/self/status"), "\n") {
		if v, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
			allowed = strings.TrimSpace(v)
		}
	}
	mine, ok := cpus(allowed)
	if !ok {
		return
	}
	e.eachLocal(func(f *dpu.Function) {
		if !f.NUMA.Known() || !f.RDMA.Known() {
			return
		}
		node, ok := cpus(e.text(fmt.Sprintf("sys/devices/system/node/node%d/cpulist", f.NUMA.Value)))
		if !ok {
			return
		}
		for c := range mine {
			if node[c] {
				return
			}
		}
		e.find(Slow, "numa", f.RDMA.Value, fmt.Sprintf("it is on NUMA node %d, and this process may run on CPUs %s only, all of other nodes", f.NUMA.Value, allowed),
			fmt.Sprintf("numactl --cpunodebind=%d --membind=%d COMMAND", f.NUMA.Value, f.NUMA.Value))
	})
}

// eachLocal calls f for every function of this side that is on the PCI bus.
func (e *exam) eachLocal(f func(*dpu.Function)) {
	for i := range e.inv.Cards {
		for j := range e.inv.Cards[i].Functions {
			if fn := &e.inv.Cards[i].Functions[j]; !fn.Remote && fn.PCI != "" {
				f(fn)
			}
		}
	}
}

// link finds slots that are slower than the card.
func (e *exam) link() {
	e.eachLocal(func(f *dpu.Function) {
		if f.Aux != "" || f.Kind.Known() && f.Kind.Value == dpu.VF {
			return
		}
		dir := path.Join("sys/bus/pci/devices", f.PCI)
		for _, what := range []string{"speed", "width"} {
			now, best := e.text(dir+"/current_link_"+what), e.text(dir+"/max_link_"+what)
			a, aok := leading(now)
			b, bok := leading(best)
			if aok && bok && a < b {
				e.find(Slow, "pcie", f.PCI, fmt.Sprintf("its PCIe link has %s %s, the card can do %s", what, now, best), "lspci -s "+f.PCI+" -vv   # then another slot, or the firmware setup")
			}
		}
	})
}

// leading is the number that a text begins with: 16.0 of "16.0 GT/s PCIe".
func leading(s string) (float64, bool) {
	f := strings.Fields(s)
	if len(f) == 0 {
		return 0, false
	}
	n, err := strconv.ParseFloat(f[0], 64)
	return n, err == nil && n > 0
}

func (e *exam) mode() {
	for i := range e.inv.Cards {
		c := &e.inv.Cards[i]
		if !c.IsDPUFamily() || e.inv.Side.Known() && e.inv.Side.Value == dpu.OnSoC {
			continue
		}
		pci := c.Functions[0].PCI
		mlx := strings.HasPrefix(c.Functions[0].ID, "15b3:")
		switch {
		case !c.Mode.Known() && mlx:
			e.find(Note, "mode", pci, "nothing here proves which mode this "+c.Family.String()+" is in",
				fmt.Sprintf("mstconfig -d %s query > FILE && zrdma devices --mstconfig %s=FILE", pci, pci))
		case c.Mode.Known() && c.Mode.Value == dpu.ModeNIC && mlx:
			e.find(Note, "mode", pci, "this "+c.Family.String()+" is in NIC mode: its cores carry no agent",
				"mstconfig -d "+pci+" set INTERNAL_CPU_OFFLOAD_ENGINE=0   # then a cold boot")
		case c.Mode.Known() && c.Mode.Value == dpu.ModeSeparated && mlx:
			e.find(Note, "mode", pci, "this "+c.Family.String()+" is in separated-host mode: its cores do not see the host's traffic",
				"mstconfig -d "+pci+" set INTERNAL_CPU_MODEL=1   # then a cold boot")
		}
	}
}

// iommu finds cards whose every access is translated.
func (e *exam) iommu() {
	var slow []string
	e.eachLocal(func(f *dpu.Function) {
		if f.Aux != "" || !f.RDMA.Known() {
			return
		}
		switch e.text(path.Join("sys/bus/pci/devices", f.PCI, "iommu_group/type")) {
		case "DMA", "DMA-FQ":
			slow = append(slow, f.PCI)
		}
	})
	if len(slow) > 0 {
		e.find(Slow, "iommu", strings.Join(slow, ", "), "the IOMMU translates every access of the card",
			"grubby --update-kernel=ALL --args=iommu=pt   # on Debian GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub; reboot")
	}
}
