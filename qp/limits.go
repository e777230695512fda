package qp

import (
	"fmt"

	"github.com/zrdma/zrdma/internal/devkind"
	"github.com/zrdma/zrdma/verbs"
)

// inlineSizes are those that devices are known to stop at, or about: a device
// refuses a queue pair with more than it has, and does not say how much that is.
var inlineSizes = []int{512, 256, 220, 188, 128, 101, 96, 64, 48, 32, controlSize, 0}

// learn asks for the device's limits on READs and atomics.
//
// Verb: ibv_query_device(3).
func (d *Device) learn() error {
	a, err := d.dev.QueryDevice()
	if err != nil {
		return fmt.Errorf("qp: %w", err)
	}
	d.rdAtomic = int(min(a.MaxQPRdAtom, a.MaxQPInitRdAtom))
	d.repeats = devkind.RepeatsLocal(d.dev)
	return nil
}

// fit cuts a configuration to what the device has.
func (d *Device) fit(c *Config, eng *Engine) {
	if d.rdAtomic > 0 {
		c.MaxRdAtomic = min(c.MaxRdAtomic, d.rdAtomic)
	}
	c.Inline = d.inline(c.Inline, c.MaxSGE, eng)
}

// inline is how many bytes inline, at most want, the device makes a queue pair
// with. What was found is remembered.
func (d *Device) inline(want, sge int, eng *Engine) int {
	type key struct{ want, sge int }
	if n, ok := d.inlines.Load(key{want, sge}); ok {
		return n.(int)
	}
	try := func(n int) bool {
		q, err := d.pd.CreateQP(verbs.QPConfig{Type: verbs.QPTRC, SendCQ: eng.cq, RecvCQ: eng.cq,
			Cap: verbs.QPCap{MaxSendWR: 1, MaxSendSGE: uint32(sge), MaxRecvWR: 1, MaxRecvSGE: 1, MaxInlineData: uint32(n)}})
		return err == nil && q.Close() == nil
	}
	n := want
	if !try(n) {
		for _, s := range inlineSizes {
			if s < want && try(s) {
				n = s
				break
			}
		}
	}
	d.inlines.Store(key{want, sge}, n)
	return n
}
