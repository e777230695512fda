package dpu

// Side says where this program runs.
type Side string

// Sides.
const (
	OnHost Side = "host"
	OnSoC  Side = "soc" // on the processor cores of a DPU
)

// Mode is how a card divides itself between its host and its own cores.
type Mode string

// Modes.
const (
	ModeDPU       Mode = "dpu"            // its cores own the switch (ECPF); the host sees what they allow
	ModeNIC       Mode = "nic"            // the host owns the card; it has no cores or they are off
	ModeSeparated Mode = "separated-host" // host and cores each have functions of their own
)

// Kind is the kind of a function.
type Kind string

// Kinds.
const (
	PF       Kind = "pf"
	VF       Kind = "vf"
	SF       Kind = "sf"
	ECPF     Kind = "ecpf"     // the physical function of the card's own cores
	Software Kind = "software" // an RDMA device without a card: rxe, siw
)

// Inventory is what a machine has.
type Inventory struct {
	Side         Claim[Side]   `json:"side"`
	Arch         string        `json:"arch"`
	DMI          DMI           `json:"dmi"`
	Cards        []Card        `json:"cards"`
	RDMA         []RDMADevice  `json:"rdma"`  // every RDMA device of the kernel, by name
	Loose        []Function    `json:"loose"` // functions of RDMA devices that are on no card
	Warnings     []string      `json:"warnings,omitempty"`
	DevlinkPorts []DevlinkPort `json:"devlink_ports,omitempty"` // as the kernel or the caller gave them
}

// DMI identifies the machine; an empty string is unknown.
type DMI struct {
	Vendor  string `json:"sys_vendor,omitempty"`
	Product string `json:"product_name,omitempty"`
	Board   string `json:"board_name,omitempty"`
	Serial  string `json:"product_serial,omitempty"`
}

// Card is one board. Its functions are known to belong together by PCI slot or by
// board serial.
type Card struct {
	Vendor       Claim[string] `json:"vendor"`
	Family       Claim[string] `json:"family"` // what the PCI id proves, for instance "BlueField-3"
	Model        Claim[string] `json:"model"`  // what the card says of itself
	Serial       Claim[string] `json:"serial"`
	PartNumber   Claim[string] `json:"part_number"`
	PSID         Claim[string] `json:"psid"`
	Firmware     Claim[string] `json:"firmware"`
	SysImageGUID Claim[string] `json:"sys_image_guid"`
	Mode         Claim[Mode]   `json:"mode"`
	Functions    []Function    `json:"functions"`
}

// Function is a PCI function, a subfunction, or one of another controller of which
// only the representor is seen here (Remote).
type Function struct {
	PCI         string        `json:"pci,omitempty"` // domain:bus:slot.function; the parent's for a subfunction
	ID          string        `json:"id,omitempty"`  // PCI vendor:device
	Aux         string        `json:"aux,omitempty"` // auxiliary device of a subfunction
	Remote      bool          `json:"remote,omitempty"`
	Kind        Claim[Kind]   `json:"kind"`
	Controller  Claim[int]    `json:"controller"` // 0: this side's own; from 1: a host's, seen from the cores
	PFNumber    Claim[int]    `json:"pf"`
	Number      Claim[int]    `json:"number"` // of the VF or SF
	RDMA        Claim[string] `json:"rdma"`
	Netdev      Claim[string] `json:"netdev"`
	MAC         Claim[string] `json:"mac"`
	Representor Claim[string] `json:"representor"` // the netdev that stands for it on the switch
	SwitchID    Claim[string] `json:"switch_id"`
	Eswitch     Claim[string] `json:"eswitch"` // "legacy" or "switchdev"
	NUMA        Claim[int]    `json:"numa"`
	Driver      Claim[string] `json:"driver"`
}

// Name is how people call the function: its PCI address, auxiliary device,
// representor or RDMA device.
func (f *Function) Name() string {
	switch {
	case f.Aux != "":
		return f.PCI + "/" + f.Aux
	case f.Remote && f.Representor.Known():
		return "behind " + f.Representor.Value
	case f.PCI != "":
		return f.PCI
	}
	return f.RDMA.Value
}

// RDMADevice is an RDMA device of the kernel.
type RDMADevice struct {
	Name         string        `json:"name"`
	NodeGUID     string        `json:"node_guid,omitempty"`
	SysImageGUID string        `json:"sys_image_guid,omitempty"`
	Firmware     string        `json:"firmware,omitempty"`
	BoardID      string        `json:"board_id,omitempty"` // the PSID, on mlx5
	Parent       string        `json:"parent,omitempty"`   // PCI address, or the netdev of a software device
	Software     Claim[bool]   `json:"software"`
	Ports        []Port        `json:"ports"`
	Caps         *Capabilities `json:"capabilities,omitempty"` // nil: not probed
}

// Port is a port of an RDMA device as sysfs shows it.
type Port struct {
	Number    int    `json:"port"`
	State     string `json:"state"`      // ACTIVE, DOWN, ...
	LinkLayer string `json:"link_layer"` // Ethernet, InfiniBand
	Rate      string `json:"rate,omitempty"`
	Netdev    string `json:"netdev,omitempty"`
	GIDs      []GID  `json:"gids,omitempty"` // those in use
}

// GID is an entry of a port's table as sysfs shows it.
type GID struct {
	Index  int    `json:"index"`
	GID    string `json:"gid"` // eight groups of four digits
	Type   string `json:"type,omitempty"`
	Netdev string `json:"netdev,omitempty"`
}

// Function finds the function of an RDMA device, nil when there is none.
func (inv *Inventory) Function(rdma string) *Function {
	for i := range inv.Cards {
		for j := range inv.Cards[i].Functions {
			if f := &inv.Cards[i].Functions[j]; f.RDMA.Known() && f.RDMA.Value == rdma {
				return f
			}
		}
	}
	for i := range inv.Loose {
		if inv.Loose[i].RDMA.Value == rdma {
			return &inv.Loose[i]
		}
	}
	return nil
}

// IsDPUFamily reports that the PCI id is of a family whose members may have cores
// of their own. It does not say that this card has usable ones.
func (c *Card) IsDPUFamily() bool {
	for i := range c.Functions {
		if families[c.Functions[i].ID].dpu {
			return true
		}
	}
	return false
}
