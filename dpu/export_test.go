package dpu

import "time"

// SetGate makes an agent call f before everything that it does to its host.
func (a *Agent) SetGate(f func(point string)) { a.gate.Store(&f) }

// SetDeaf makes an agent go on though its lease is over.
func (a *Agent) SetDeaf(on bool) { a.deaf.Store(on) }

// PutOffFences makes a client take no fence until ch is closed.
func (c *Client) PutOffFences(ch chan struct{}) { c.unfenced = ch }

// Writer is the name under which a client writes.
func (c *Client) Writer() Writer { return c.writer }

// PolicyState is a Policy at work, for tests.
type PolicyState struct{ p policy }

// NewPolicyState begins one.
func NewPolicyState(p Policy) (*PolicyState, error) {
	p, err := p.withDefaults()
	s := &PolicyState{}
	s.p.Policy = p
	return s, err
}

func (s *PolicyState) Policy() Policy                     { return s.p.Policy }
func (s *PolicyState) Up(now time.Duration)               { s.p.agentUp(now) }
func (s *PolicyState) Lost(now time.Duration)             { s.p.agentLost(now) }
func (s *PolicyState) Heard(now time.Duration, well bool) { s.p.heard(now, well) }
func (s *PolicyState) Begin()                             { s.p.begin(1) }
func (s *PolicyState) Ended(now time.Duration, well bool) { s.p.ended(now, well) }
func (s *PolicyState) End()                               { s.p.end(1) }
func (s *PolicyState) Changes() uint64                    { return s.p.changes }
func (s *PolicyState) Choose(now time.Duration, size int, asked Path) (Path, error) {
	return s.p.choose(now, size, asked)
}
