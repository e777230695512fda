package doctor

import (
	"fmt"
	"strings"
)

func (e *exam) ports() {
	for _, d := range e.inv.RDMA {
		for _, p := range d.Ports {
			if p.State == "ACTIVE" || p.State == "" {
				continue
			}
			subject := fmt.Sprintf("%s port %d", d.Name, p.Number)
			netdev := p.Netdev
			if f := e.inv.Function(d.Name); netdev == "" && f != nil {
				netdev = f.Netdev.Value
			}
			switch {
			case p.LinkLayer == "InfiniBand":
				e.find(Broken, "port", subject, "it is "+p.State+": no cable, or no subnet manager on the fabric", "ibstat "+d.Name+"; sminfo -C "+d.Name)
			case netdev == "":
				e.find(Broken, "port", subject, "it is "+p.State, "ip link set NETDEV up")
			default:
				e.find(Broken, "port", subject, "it is "+p.State, "ip link set "+netdev+" up")
			}
		}
	}
}

// RoCE's own headers on top of a payload of the MTU.
const roceOverhead = 100

func (e *exam) mtu() {
	seen := map[string]bool{}
	for _, p := range e.rdmaNetdevs() {
		m, ok := e.number("sys/class/net/" + p.netdev + "/mtu")
		if !ok || m == 0 || seen[p.netdev] || e.linkLayer(p) == "InfiniBand" {
			continue
		}
		seen[p.netdev] = true
		if m >= 4096+roceOverhead {
			continue
		}
		roce := 256
		for roce < 2048 && uint64(2*roce+roceOverhead) <= m {
			roce *= 2
		}
		if m < 256+roceOverhead {
			e.find(Broken, "mtu", p.netdev, fmt.Sprintf("an MTU of %d has no room for the smallest RoCE packet of %s", m, p.rdma), "ip link set "+p.netdev+" mtu 1500")
			continue
		}
		e.find(Slow, "mtu", p.netdev, fmt.Sprintf("its MTU of %d gives %s a RoCE MTU of about %d; 4096 needs %d, on the switch and the peers too", m, p.rdma, roce, 4096+roceOverhead),
			"ip link set "+p.netdev+" mtu 9000")
	}
}

func (e *exam) linkLayer(p pair) string {
	for _, d := range e.inv.RDMA {
		for _, q := range d.Ports {
			if d.Name == p.rdma && q.Number == p.port {
				return q.LinkLayer
			}
		}
	}
	return ""
}

func (e *exam) gids() {
	for _, d := range e.inv.RDMA {
		for _, p := range d.Ports {
			dir := fmt.Sprintf("sys/class/infiniband/%s/ports/%d", d.Name, p.Number)
			if p.LinkLayer == "InfiniBand" || !e.exists(dir+"/gids") {
				continue
			}
			subject := fmt.Sprintf("%s port %d", d.Name, p.Number)
			netdev := p.Netdev
			if netdev == "" {
				netdev = "NETDEV"
			}
			if len(p.GIDs) == 0 {
				e.find(Broken, "gids", subject, "it has no GID, so no address", "ip addr add ADDRESS/PREFIX dev "+netdev)
				continue
			}
			v4 := false
			for _, g := range p.GIDs {
				v4 = v4 || strings.HasPrefix(g.GID, "0000:0000:0000:0000:0000:ffff:")
			}
			if !v4 {
				e.find(Note, "gids", subject, "it has no GID of an IPv4 address: peers that are named by one do not reach it", "ip addr add ADDRESS/PREFIX dev "+netdev)
			}
			types, v2 := 0, false
			for _, g := range p.GIDs {
				if g.Type != "" {
					types++
					v2 = v2 || g.Type == "RoCE v2"
				}
			}
			if types > 0 && !v2 {
				e.find(Broken, "gids", subject, "no GID is of type RoCE v2", "cma_roce_mode -d "+d.Name+" -p "+fmt.Sprint(p.Number)+" -m 2")
			}
		}
	}
}

// congestion reads what NVIDIA's driver shows of ECN, by priority, and of PFC.
// Without these files nothing is said: DCB is then the switch's business.
func (e *exam) congestion() {
	for _, p := range e.rdmaNetdevs() {
		for role, name := range map[string]string{"roce_np": "notification", "roce_rp": "reaction"} {
			dir := "sys/class/net/" + p.netdev + "/ecn/" + role + "/enable"
			on, off := 0, 0
			for _, prio := range e.list(dir) {
				switch e.text(dir + "/" + prio) {
				case "1":
					on++
				case "0":
					off++
				}
			}
			if on == 0 && off > 0 {
				e.find(Slow, "ecn", p.netdev, "congestion "+name+" (ECN) is off for every priority: a full switch drops, and RoCE starts over",
					"echo 1 > /"+dir+"/PRIORITY")
			}
		}
		if pfc := e.text("sys/class/net/" + p.netdev + "/qos/pfc"); pfc != "" && strings.Trim(pfc, "0, ") == "" {
			e.find(Slow, "pfc", p.netdev, "flow control is off for every priority", "mlnx_qos -i "+p.netdev+" --pfc 0,0,0,1,0,0,0,0")
		}
	}
}
