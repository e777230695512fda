package guest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience is how long a device may take to appear. Emulated guests that share
// two cores are slow.
const patience = 20 * time.Second

func setupNet(nics []NIC) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	for _, n := range nics {
		if err := setupNIC(n); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	for _, n := range nics {
		if n.Rxe == "" {
			if err := waitLink(n); err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			continue
		}
		if err := netlink.RdmaLinkAdd(n.Rxe, "rxe", n.Name); err != nil {
			return fmt.Errorf("add %s on %s: %w", n.Rxe, n.Name, err)
		}
		if err := waitRxe(n); err != nil {
			return fmt.Errorf("%s: %w", n.Rxe, err)
		}
	}
	return nil
}

func setupNIC(n NIC) error {
	link, err := findLink(n)
	if err != nil {
		return err
	}
	for key, value := range map[string]string{
		// Addresses must be usable at once, and nobody announces routes here.
		"ipv6/conf/" + n.Name + "/accept_dad": "0",
		"ipv6/conf/" + n.Name + "/accept_ra":  "0",
		// Two cards in one host must not answer for each other.
		"ipv4/conf/" + n.Name + "/arp_ignore":   "1",
		"ipv4/conf/" + n.Name + "/arp_announce": "2",
		// The link-local address, hence GID 0, is the EUI-64 of the MAC.
		"ipv6/conf/" + n.Name + "/addr_gen_mode": "0",
	} {
		if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0o644); err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
	}
	if err := netlink.LinkSetMTU(link, n.MTU); err != nil {
		return fmt.Errorf("set MTU %d: %w", n.MTU, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	for _, a := range n.Addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, addr); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	return nil
}

func findLink(n NIC) (netlink.Link, error) {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		link, err := netlink.LinkByName(n.Name)
		if err == nil {
			if got := link.Attrs().HardwareAddr.String(); got != n.MAC {
				return nil, fmt.Errorf("has the address %s, not %s", got, n.MAC)
			}
			return link, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("did not appear: %w", err)
		}
	}
}

// linkSettled says whether the card has its carrier and its link-local address.
func linkSettled(name string) bool {
	state, err := os.ReadFile("/sys/class/net/" + name + "/operstate")
	if err != nil || strings.TrimSpace(string(state)) != "up" {
		return false
	}
	addrs, err := os.ReadFile("/proc/net/if_inet6")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(addrs)) {
		if f := strings.Fields(line); len(f) == 6 && f[5] == name && strings.HasPrefix(f[0], "fe80") {
			return true
		}
	}
	return false
}

// waitLink waits until a card without rxe is ready.
func waitLink(n NIC) error {
	for end := time.Now().Add(patience); !linkSettled(n.Name); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("not ready: no carrier, or no link-local address")
		}
	}
	return nil
}

// waitRxe waits until the port is active and every address has its GID: the
// kernel fills the table after the link was added.
func waitRxe(n NIC) error {
	port := "/sys/class/infiniband/" + n.Rxe + "/ports/1/"
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		missing, err := missingGID(port, n.Addrs)
		state, serr := os.ReadFile(port + "state")
		if err == nil && serr == nil && missing == "" && strings.HasPrefix(string(state), "4:") && linkSettled(n.Name) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("not ready: port state %q, no GID for %q, errors: %v", state, missing, errors.Join(err, serr))
		}
	}
}

func missingGID(port string, addrs []string) (string, error) {
	have := map[string]bool{}
	for i := range 16 { // entries are filled in order
		b, err := os.ReadFile(port + "gids/" + strconv.Itoa(i))
		if err != nil {
			return "", err
		}
		if ip := net.ParseIP(strings.TrimSpace(string(b))); ip != nil {
			have[ip.String()] = true
		}
	}
	for _, a := range addrs {
		ip, _, err := net.ParseCIDR(a)
		if err != nil {
			return "", err
		}
		if !have[ip.String()] {
			return a, nil
		}
	}
	return "", nil
}
