package rpc

import (
	"math"
	"sync"
	"sync/atomic"
)

// gate counts those inside and lets nobody in once it is closed.
type gate struct {
	n    atomic.Int64 // those inside; closed: less closedGate
	once sync.Once
	out  chan struct{} // closed when it is closed and nobody is inside
}

const closedGate = math.MinInt64 / 2

func (g *gate) enter() bool {
	if g.n.Add(1) > 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g.n.Add(-1) == closedGate {
		g.once.Do(func() { close(g.out) })
	}
}

// shut closes the gate, once, and waits until nobody is inside.
func (g *gate) shut() {
	if g.n.Add(closedGate) == closedGate {
		g.once.Do(func() { close(g.out) })
	}
	<-g.out
}
