package rdmatest

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zrdma/zrdma/internal/roce/link"
)

// TB is what a *testing.T, B or F is to this package.
type TB interface {
	Helper()
	Cleanup(func())
	Failed() bool
	Log(args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Network is a network in memory. It ends with the test that made it.
type Network struct {
	seed   uint64
	faults *link.Faults
	start  time.Time
	log    packetLog
	before map[string]int // objects that were open before

	mu      sync.Mutex
	devices []*Device // guarded by mu
	next    int       // guarded by mu: number of the next device
}

// NewNetwork makes a network whose packets move in real time. The seed decides
// what chance does to the packets of each direction: the i-th has the same fate in
// every run.
func NewNetwork(t TB, seed uint64) *Network {
	t.Helper()
	return newNetwork(t, seed, link.MemOptions{})
}

// NewVirtualNetwork makes a network whose packets move with the clock of the
// testing/synctest bubble that it is called in; elsewhere it moves in real time,
// one packet after the other. See Run.
func NewVirtualNetwork(t TB, seed uint64) *Network {
	t.Helper()
	return newNetwork(t, seed, link.MemOptions{Virtual: true})
}

// Run runs f in a testing/synctest bubble with a virtual network: waiting costs
// no time, and the same seed gives the same run.
func Run(t *testing.T, seed uint64, f func(t *testing.T, net *Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, NewVirtualNetwork(t, seed)) })
}

func newNetwork(t TB, seed uint64, o link.MemOptions) *Network {
	n := &Network{seed: seed, faults: link.Faulty(link.Memory(seed, o), seed), start: time.Now(), before: open()}
	n.faults.Observe(n.log.add)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(n.tail(printed))
		}
	})
	return n
}

// addrs are the addresses of the i-th device, from 1.
func addrs(i int) []netip.Addr {
	hi, lo := byte(i>>8), byte(i)
	v6 := netip.MustParseAddr("fd00:7a72:646d::").As16()
	v6[14], v6[15] = hi, lo
	return []netip.Addr{netip.AddrFrom4([4]byte{10, 0, hi, lo}), netip.AddrFrom16(v6)}
}

func (n *Network) nextAddrs() []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	return addrs(n.next)
}

func (n *Network) add(d *Device) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.devices = append(n.devices, d)
}

func (n *Network) all() []*Device {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*Device(nil), n.devices...)
}

func (n *Network) tail(k int) string {
	all := n.Log()
	skipped := max(0, len(all)-k)
	s := fmt.Sprintf("rdmatest: %d packets, the last %d:\n", n.log.total(), len(all)-skipped)
	for i := range all[skipped:] {
		s += all[skipped+i].String() + "\n"
	}
	return s
}
