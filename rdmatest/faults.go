package rdmatest

import (
	"fmt"
	"time"

	"github.com/zrdma/zrdma/internal/roce/link"
)

// Faults are what a network does to the packets of one direction. The zero value
// does nothing. Probabilities are of a packet, from 0 to 1.
type Faults struct {
	Drop      float64
	Duplicate float64
	Corrupt   float64 // bits flipped; the receiver finds it by the ICRC and drops the packet
	Reorder   float64 // held back until later packets have passed, for a millisecond at most
	// ReorderDepth is how many packets may pass one that is held back; 0: 3.
	ReorderDepth int

	// Delay, and up to Jitter at random, is added to each packet's way, which does
	// not change their order.
	Delay, Jitter time.Duration
	Bandwidth     int64 // bytes per second; 0: any
	// Queue is how many bytes may wait for Delay and Bandwidth before others are
	// dropped; 0: 4 MiB.
	Queue int
}

func (f Faults) rules() link.Rules {
	for name, p := range map[string]float64{"Drop": f.Drop, "Duplicate": f.Duplicate, "Corrupt": f.Corrupt, "Reorder": f.Reorder} {
		if !(p >= 0 && p <= 1) {
			panic(fmt.Sprintf("rdmatest: Faults.%s is %v: probabilities are from 0 to 1", name, p))
		}
	}
	if f.ReorderDepth < 0 || f.Delay < 0 || f.Jitter < 0 || f.Bandwidth < 0 || f.Queue < 0 {
		panic(fmt.Sprintf("rdmatest: a number of %+v is negative", f))
	}
	return link.Rules{
		Drop: f.Drop, Duplicate: f.Duplicate, Corrupt: f.Corrupt, Reorder: f.Reorder, ReorderDepth: f.ReorderDepth,
		Delay: f.Delay, Jitter: f.Jitter, Rate: f.Bandwidth, Queue: f.Queue,
	}
}

// SetFaults sets what happens to all packets, in every direction, from now on.
// Partitions stay. A value out of range panics.
func (n *Network) SetFaults(f Faults) {
	r := f.rules()
	n.faults.SetAll(r)
	devices := n.all()
	for _, a := range devices {
		for _, b := range devices {
			n.set(a, b, r)
		}
	}
}

// SetFaultsFrom sets what happens to packets from one device to another, and not
// to those that come back.
func (n *Network) SetFaultsFrom(from, to *Device, f Faults) { n.set(from, to, f.rules()) }

func (n *Network) set(from, to *Device, r link.Rules) {
	for _, a := range from.addrs {
		for _, b := range to.addrs {
			r.Cut = n.faults.Rules(a, b).Cut
			n.faults.Set(a, b, r)
		}
	}
}

// Partition lets nothing pass between two devices, until Heal. Faults that were
// set stay.
func (n *Network) Partition(a, b *Device) {
	n.cut(a, b, true)
	n.cut(b, a, true)
}

// Cut lets nothing pass from one device to another, until Heal; the way back is as
// it was.
func (n *Network) Cut(from, to *Device) { n.cut(from, to, true) }

// Heal ends a Partition or Cut between two devices.
func (n *Network) Heal(a, b *Device) {
	n.cut(a, b, false)
	n.cut(b, a, false)
}

// Remove takes a device away for good, as a NIC that is pulled out or fails:
// nothing it sends or is sent arrives, verbs.EventDeviceFatal comes to those who
// have it open, and rdmacm.EventDeviceRemoval to their ids. They close what they
// have, as with any device.
func (n *Network) Remove(d *Device) {
	for _, x := range n.all() {
		n.cut(d, x, true)
		n.cut(x, d, true)
	}
	d.soft.Remove()
}

func (n *Network) cut(from, to *Device, cut bool) {
	for _, a := range from.addrs {
		for _, b := range to.addrs {
			n.faults.Cut(a, b, cut)
		}
	}
}
