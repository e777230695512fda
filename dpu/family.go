package dpu

import "strings"

// family is what a PCI id proves: never more than the family of the card.
type family struct {
	name string
	dpu  bool // members may have processor cores of their own
	nic  bool // members have none
	vf   bool // the id is that of a virtual function
	soc  bool // the id is seen from the card's own cores only
	x86  bool // the card's cores are x86, so an amd64 machine may be the card
}

var families = map[string]family{
	"15b3:a2d2": {name: "BlueField-1", dpu: true},
	"15b3:a2d6": {name: "BlueField-2", dpu: true},
	"15b3:a2dc": {name: "BlueField-3", dpu: true},
	"15b3:a2df": {name: "BlueField-4", dpu: true},
	"15b3:1017": {name: "ConnectX-5", nic: true},
	"15b3:1019": {name: "ConnectX-5 Ex", nic: true},
	"15b3:101b": {name: "ConnectX-6", nic: true},
	"15b3:101d": {name: "ConnectX-6 Dx", nic: true},
	"15b3:101f": {name: "ConnectX-6 Lx", nic: true},
	"15b3:1021": {name: "ConnectX-7", nic: true},
	"15b3:1023": {name: "ConnectX-8", nic: true},
	"15b3:101e": {name: "mlx5 virtual function", vf: true},
	"8086:1452": {name: "Intel IPU E2100", dpu: true},
	"8086:145c": {name: "Intel IPU E2100", dpu: true, vf: true},
	"177d:b900": {name: "Marvell Octeon 10", dpu: true},
	"177d:ba00": {name: "Marvell Octeon 10", dpu: true},
	"177d:bc00": {name: "Marvell Octeon 10", dpu: true},
	"177d:bd00": {name: "Marvell Octeon 10", dpu: true},
	"177d:a0f7": {name: "Marvell Octeon 10", dpu: true, soc: true},
	"1dd8:1002": {name: "AMD Pensando DSC", dpu: true},
	"1dd8:1003": {name: "AMD Pensando DSC", dpu: true, vf: true},
	"8086:124c": {name: "Intel NetSec accelerator", dpu: true, x86: true},
	"8086:124d": {name: "Intel NetSec accelerator", dpu: true, x86: true},
	"8086:1599": {name: "Intel NetSec accelerator", dpu: true, x86: true},
}

var vendors = map[string]string{
	"15b3": "NVIDIA (Mellanox)",
	"8086": "Intel",
	"177d": "Marvell (Cavium)",
	"1dd8": "AMD (Pensando)",
	"14e4": "Broadcom",
	"1077": "QLogic",
	"1425": "Chelsio",
	"1d0f": "Amazon",
	"19e5": "Huawei",
	"1af4": "Red Hat (virtio)",
	"1414": "Microsoft",
}

// isSerial tells a serial number from what vendors put where there is none. A
// placeholder would make one card of two.
func isSerial(s string) bool {
	if len(s) < 4 {
		return false
	}
	switch strings.ToLower(s) {
	case "none", "unknown", "default string", "not specified", "to be filled by o.e.m.", "unspecified serial number":
		return false
	}
	return strings.Trim(s, s[:1]) != "" // 0000000
}
