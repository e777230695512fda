// Package dpufault makes agents and clients of package dpu misbehave, for tests in
// other processes and virtual machines: an agent that hangs and then goes on as if
// nothing had been, and a client that takes no fence. What is set counts for agents
// and clients that are made afterwards. Nothing outside this module can set it.
package dpufault

import "sync/atomic"

// Agent is what new agents get.
type Agent struct {
	// Gate is called before everything that an agent does to its host: "data" and
	// "beat". It may block.
	Gate func(point string)
	// Deaf agents go on though their lease is over.
	Deaf bool
}

var (
	agent    atomic.Pointer[Agent]
	unfenced atomic.Pointer[chan struct{}]
)

// SetAgent sets what new agents get.
func SetAgent(a Agent) { agent.Store(&a) }

// ForAgent is what SetAgent has set.
func ForAgent() Agent {
	if a := agent.Load(); a != nil {
		return *a
	}
	return Agent{}
}

// SetUnfenced makes new clients put every fence off until ch is closed; nil: not.
func SetUnfenced(ch chan struct{}) { unfenced.Store(&ch) }

// Unfenced is what SetUnfenced has set, or nil.
func Unfenced() chan struct{} {
	if p := unfenced.Load(); p != nil {
		return *p
	}
	return nil
}
