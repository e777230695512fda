package guest

// Names that the harness and the guest agree on.
const (
	ConfigFile  = "softroce.json"
	Port        = "softroce.agent"
	RootTag     = "hostroot"
	UserlandTag = "userland"

	// What process 1 says on the console.
	Alive  = "softroce-init: alive"
	Failed = "softroce-init: failed: "
)

// Config is written into the initramfs.
type Config struct {
	Hostname string
	Modules  []string // files in the initramfs, in the order to load them
	// ModulesDir is where the host's root has the kernel's modules folder;
	// the guest's /lib/modules/Release points to it.
	ModulesDir string
	Release    string
	Userland   bool // a folder of the guest's architecture lies over the host's root
	NICs       []NIC
	Names      []Name // lines for /etc/hosts
}

// NIC is one network card and the rxe device on it.
type NIC struct {
	MAC   string
	Name  string   // eth0
	MTU   int      //
	Addrs []string // CIDR
	Rxe   string   // rxe0; empty for none
}

// Name is one line of /etc/hosts.
type Name struct{ Addr, Name string }
