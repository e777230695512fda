package qp

import (
	"slices"

	"github.com/zrdma/zrdma/verbs"
)

// DeviceStats are counts of all connections of a device.
type DeviceStats struct {
	Conns  int    // open now
	Opened uint64 // ever, those that were refused later among them
	// Stats are the sums of the connections'. What counts up goes on doing so when a
	// connection is closed; the others are of those that are open.
	Stats
}

// Stats reads the counts of the device's connections.
func (d *Device) Stats() DeviceStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := DeviceStats{Conns: len(d.byQP), Opened: d.opened}
	s.add(d.past)
	for _, c := range d.byQP {
		x := c.Stats()
		s.add(x)
		s.InFlight += x.InFlight
		s.SendFree += x.SendFree
		s.SendWaiting += x.SendWaiting
		s.Credits += x.Credits
		s.CreditWaiting += x.CreditWaiting
		s.Undelivered += x.Undelivered
		if c.recv.own { // shared ones would be counted for each
			s.ReceivesPosted += x.ReceivesPosted
		}
	}
	return s
}

// Engines are the completion queues of the device, in order.
func (d *Device) Engines() []*Engine { return slices.Clone(d.engines) }

// add adds what counts up.
func (s *Stats) add(x Stats) {
	s.Posted += x.Posted
	s.Completed += x.Completed
	s.Doorbells += x.Doorbells
	s.Received += x.Received
	s.Abandoned += x.Abandoned
	s.Orphans += x.Orphans
	s.Copied += x.Copied
	s.SendStalls += x.SendStalls
	s.CreditStalls += x.CreditStalls
	if s.Errors == nil {
		s.Errors = map[verbs.WCStatus]uint64{}
	}
	for k, n := range x.Errors {
		s.Errors[k] += n
	}
}
