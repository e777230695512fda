package dpu

// DevlinkDevice is a devlink device with what the kernel says of it.
type DevlinkDevice struct {
	Bus     string            `json:"bus"`    // "pci"
	Device  string            `json:"device"` // "0000:03:00.0"
	Eswitch string            `json:"eswitch,omitempty"`
	Info    map[string]string `json:"info,omitempty"` // fw.version, fw.psid, serial_number, board.serial_number
	Ports   []DevlinkPort     `json:"ports,omitempty"`
}

// DevlinkPort is a port of the switch of a devlink device. Pointers are nil where
// the kernel did not say.
type DevlinkPort struct {
	Bus        string  `json:"bus,omitempty"`
	Device     string  `json:"device,omitempty"`
	Index      uint32  `json:"index"`
	Flavour    string  `json:"flavour,omitempty"` // physical, virtual, pcipf, pcivf, pcisf
	Netdev     string  `json:"netdev,omitempty"`
	RDMA       string  `json:"rdma,omitempty"`
	Number     *uint32 `json:"number,omitempty"`
	Controller *uint32 `json:"controller,omitempty"`
	External   bool    `json:"external,omitempty"` // the function is another controller's
	PF         *uint16 `json:"pf,omitempty"`
	VF         *uint16 `json:"vf,omitempty"`
	SF         *uint32 `json:"sf,omitempty"`
	HWAddr     string  `json:"hw_addr,omitempty"` // of the function behind the port
}

// RDMALink is an RDMA device as netlink has it. GUIDs are as sysfs writes them.
type RDMALink struct {
	Name         string
	Firmware     string
	NodeGUID     string
	SysImageGUID string
}

var flavours = map[uint16]string{0: "physical", 1: "cpu", 2: "dsa", 3: "pcipf", 4: "pcivf", 5: "virtual", 6: "unused", 7: "pcisf"}
