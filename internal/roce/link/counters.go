package link

import "sync/atomic"

// counters are Stats under way.
type counters struct {
	txPackets, txBytes, txCalls, txDropped atomic.Uint64
	rxPackets, rxBytes, rxCalls, rxDropped atomic.Uint64
	rxBadICRC, rxMalformed                 atomic.Uint64
}

func (c *counters) stats() Stats {
	return Stats{
		TxPackets: c.txPackets.Load(), TxBytes: c.txBytes.Load(), TxCalls: c.txCalls.Load(),
		RxPackets: c.rxPackets.Load(), RxBytes: c.rxBytes.Load(), RxCalls: c.rxCalls.Load(),
		RxBadICRC: c.rxBadICRC.Load(), RxMalformed: c.rxMalformed.Load(),
		RxDropped: c.rxDropped.Load(), TxDropped: c.txDropped.Load(),
	}
}

func (c *counters) sent(packets, bytes int) {
	c.txCalls.Add(1)
	c.txPackets.Add(uint64(packets))
	c.txBytes.Add(uint64(bytes))
}

func (c *counters) received(packets, bytes int) {
	c.rxCalls.Add(1)
	c.rxPackets.Add(uint64(packets))
	c.rxBytes.Add(uint64(bytes))
}
