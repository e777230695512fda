package dpu

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// connect keeps a session with the agent until the client is closed.
func (c *Client) connect() {
	defer c.wg.Done()
	var first sync.Once
	tried := func() { first.Do(func() { close(c.tried) }) }
	defer tried()
	backoff := 50 * time.Millisecond
	for c.life.Err() == nil {
		s, err := c.dialAgent()
		if err != nil {
			if c.life.Err() != nil {
				return
			}
			c.tell(Event{Kind: AgentAway, Err: err})
			tried()
			select {
			case <-time.After(backoff/2 + rand.N(backoff/2+1)):
			case <-c.life.Done():
				return
			}
			backoff = min(2*backoff, c.cfg.MaxBackoff)
			continue
		}
		backoff = 50 * time.Millisecond
		c.mu.Lock()
		closed := c.closed
		if !closed {
			c.cur = s
		}
		c.mu.Unlock()
		if closed {
			s.quit()
		} else {
			c.stats.agents.Add(1)
			c.policy.agentUp(c.now())
			c.tell(Event{Kind: AgentUp, Epoch: s.epoch})
		}
		tried()
		s.serve()
	}
}

// dialAgent makes a session.
func (c *Client) dialAgent() (*hostSession, error) {
	c.mu.Lock()
	c.epoch++
	epoch := c.epoch
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(c.life, greetTime)
	defer cancel()
	return newHostSession(ctx, c, epoch)
}

// retired takes a session out of use. why is nil when it ended in order.
func (c *Client) retired(s *hostSession, why error) {
	c.mu.Lock()
	was := c.cur == s
	if was {
		c.cur = nil
	}
	c.mu.Unlock()
	if was {
		c.policy.agentLost(c.now())
		if why != nil && !errors.Is(why, verbs.ErrClosed) {
			c.stats.lost.Add(1)
		}
	}
}
