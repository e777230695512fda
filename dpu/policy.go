package dpu

import (
	"fmt"
	"sync"
	"time"
)

// Policy says which operations an agent gets. The zero value is good.
type Policy struct {
	// Path, when not Auto, is taken by every operation whose context names none.
	Path Path
	// MinSize is the smallest operation in bytes that goes to the agent: small ones
	// are about latency, and the way through an agent is longer. 0: 64 KiB;
	// negative: all.
	MinSize int
	// MaxDepth is how many operations the agent may have before others go Direct,
	// until it has only ResumeDepth left. 0: 64, and half of MaxDepth.
	MaxDepth, ResumeDepth int
	// Probation is how long an agent must have been well, after it was lost, before
	// it is used again. It doubles with every loss that follows within ten times its
	// length, up to MaxProbation. 0: 1 s, and 1 min; negative: none.
	Probation, MaxProbation time.Duration
}

func (p Policy) withDefaults() (Policy, error) {
	if p.MinSize == 0 {
		p.MinSize = 64 << 10
	}
	if p.MaxDepth == 0 {
		p.MaxDepth = 64
	}
	if p.ResumeDepth == 0 {
		p.ResumeDepth = p.MaxDepth / 2
	}
	if p.Probation == 0 {
		p.Probation = time.Second
	}
	if p.MaxProbation == 0 {
		p.MaxProbation = max(time.Minute, p.Probation)
	}
	p.Probation, p.MaxProbation = max(p.Probation, 0), max(p.MaxProbation, 0)
	switch {
	case p.Path > CrossGVMI:
		return p, fmt.Errorf("dpu: Policy.Path is %v", p.Path)
	case p.MaxDepth < 0 || p.ResumeDepth < 0 || p.ResumeDepth >= p.MaxDepth:
		return p, fmt.Errorf("dpu: Policy.MaxDepth is %d and ResumeDepth %d: both positive, the second the smaller", p.MaxDepth, p.ResumeDepth)
	case p.MaxProbation < p.Probation:
		return p, fmt.Errorf("dpu: Policy.MaxProbation %v is less than Probation %v", p.MaxProbation, p.Probation)
	}
	return p, nil
}

// policy is the state of a Policy. Time is since some beginning.
type policy struct {
	Policy

	mu        sync.Mutex
	up        bool          // there is an agent; guarded by mu, as all below
	from      time.Duration // when it may be used
	suspect   bool          // it is silent for longer than it should be
	full      bool          // between MaxDepth and ResumeDepth, on the way down
	depth     int
	probation time.Duration // of the next agent, or this one
	lostAt    time.Duration
	lostEver  bool
	changes   uint64        // of full
	bad       int           // operations in a row that ended badly
	rest      time.Duration // after the next maxBad of them
}

// agentUp says that there is an agent.
func (p *policy) agentUp(now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up, p.suspect, p.from = true, false, now
	if p.lostEver {
		p.from += p.probation
	}
}

// agentLost says that there is none any more.
func (p *policy) agentLost(now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.lostEver || p.probation == 0 || now-p.lostAt > 10*p.probation:
		p.probation = p.Probation
	default:
		p.probation = min(2*p.probation, p.MaxProbation)
	}
	p.up, p.lostEver, p.lostAt = false, true, now
}

// heard says whether the agent was heard of lately. After a silence it must have
// been well for a quarter of Probation.
func (p *policy) heard(now time.Duration, well bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if well && p.suspect {
		p.from = max(p.from, now+p.Probation/4)
	}
	p.suspect = !well
}

// maxBad is how many operations in a row an agent may fail for its store's sake
// before others go Direct for a while.
const maxBad = 3

// ended says how an operation that the agent answered has ended: badly when its store
// did not answer it in time. A store that only the agent cannot reach must not cost
// each operation its whole time.
func (p *policy) ended(now time.Duration, well bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if well {
		p.bad, p.rest = 0, 0
		return
	}
	if p.bad++; p.bad < maxBad && p.rest == 0 {
		return
	}
	p.rest = min(max(2*p.rest, p.Probation), p.MaxProbation)
	p.bad, p.from = 0, max(p.from, now+p.rest)
}

func (p *policy) begin(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.depth += n
	switch {
	case p.depth >= p.MaxDepth && !p.full:
		p.full = true
		p.changes++
	case p.depth <= p.ResumeDepth && p.full:
		p.full = false
		p.changes++
	}
}

// end is begin of as many operations less.
func (p *policy) end(n int) { p.begin(-n) }

// usable reports an agent that may be given something. Held by mu.
func (p *policy) usable(now time.Duration) bool {
	return p.up && !p.suspect && now >= p.from
}

// choose decides about an operation that moves size bytes. With a Path that was
// asked for explicitly it is that, or ErrNoAgent.
func (p *policy) choose(now time.Duration, size int, asked Path) (Path, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if asked == Auto {
		asked = p.Path
	}
	switch asked {
	case Direct:
		return Direct, nil
	case Staged, CrossGVMI:
		if !p.up {
			return asked, ErrNoAgent
		}
		return asked, nil
	}
	if size < p.MinSize || p.full || !p.usable(now) {
		return Direct, nil
	}
	return Staged, nil
}
