package softroce

import (
	"fmt"
	"slices"

	"github.com/zrdma/zrdma/test/softroce/internal/guest"
)

func hostName(host int) string { return fmt.Sprintf("host%d", host) }

// ipv4 of a host's card; cards of the same number share a network.
func ipv4(host, card int) string { return fmt.Sprintf("10.%d.0.%d", 77+card, host+1) }

func ipv6(host, card int) string { return fmt.Sprintf("fd%d::%x", 77+card, host+1) }

// mac is locally administered.
func mac(host, card int) string { return fmt.Sprintf("52:54:00:77:%02x:%02x", card, host+1) }

func guestConfig(cfg Config, host int) guest.Config {
	g := guest.Config{Hostname: hostName(host)}
	for card := range cfg.Rxe {
		n := guest.NIC{
			MAC: mac(host, card), Name: fmt.Sprintf("eth%d", card), MTU: cfg.MTU,
			Addrs: []string{ipv4(host, card) + "/24", ipv6(host, card) + "/64"},
		}
		if !slices.Contains(cfg.NoRxe, host) {
			n.Rxe = fmt.Sprintf("rxe%d", card)
		}
		g.NICs = append(g.NICs, n)
	}
	for h := range cfg.Hosts {
		for card := range cfg.Rxe {
			name := hostName(h)
			if card > 0 {
				name += fmt.Sprintf("-%d", card)
			}
			// One name has one address: a server that listens for IPv4 alone, as
			// rping does, must be found by name.
			g.Names = append(g.Names, guest.Name{Addr: ipv4(h, card), Name: name}, guest.Name{Addr: ipv6(h, card), Name: name + "-v6"})
		}
	}
	return g
}
