package roce

import "github.com/zrdma/zrdma/internal/provider"

var _ provider.PD = (*pd)(nil)

// AllocPD makes a protection domain.
//
// Verb: ibv_alloc_pd(3).
func (c *devCtx) AllocPD() (provider.PD, error) {
	p, err := c.n.allocPD(c)
	if err != nil {
		return nil, err
	}
	return p, nil
}
