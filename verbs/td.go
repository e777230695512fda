package verbs

import (
	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// TD is a thread domain: the promise that the objects made from it are used by
// one goroutine at a time, so that the device may leave locks out.
type TD struct {
	h handle.Handle
	p provider.TD
}

// AllocTD allocates a thread domain; give it to PD.AllocParentDomain.
//
// Verb: ibv_alloc_td(3).
func (c *Context) AllocTD() (*TD, error) {
	const verb = "ibv_alloc_td"
	p, err := createRare(&c.h, verb, c.p, provider.TDAllocator.AllocTD)
	if err != nil {
		return nil, err
	}
	t := &TD{p: p}
	if err := adopt(&t.h, "verbs.TD", verb, p, &c.h); err != nil {
		return nil, err
	}
	watch(t, &t.h)
	return t, nil
}

// Close frees the thread domain: ErrInUse while a parent domain uses it.
//
// Verb: ibv_dealloc_td(3).
func (t *TD) Close() error { return verbErr("ibv_dealloc_td", t.h.Close(t.p.Close)) }

// AllocParentDomain makes a domain that behaves as d, with a thread domain added
// (nil: none). Its Close is ibv_dealloc_pd; d and td must outlive it.
//
// The custom allocators of the C verb are left out: the device would call them
// from any C code, posts and polls included, and a Go function may not be
// called from there.
//
// Verb: ibv_alloc_parent_domain(3).
func (d *PD) AllocParentDomain(td *TD) (*PD, error) {
	const verb = "ibv_alloc_parent_domain"
	var t provider.TD
	parents := []*handle.Handle{&d.h}
	if td != nil {
		if err := enter(&td.h, verb); err != nil {
			return nil, err
		}
		defer td.h.Exit()
		t = td.p
		parents = append(parents, &td.h)
	}
	p, err := createRare(&d.h, verb, d.p, func(i provider.ParentDomainAllocator) (provider.PD, error) {
		return i.AllocParentDomain(t)
	})
	if err != nil {
		return nil, err
	}
	return newPD(d.c, p, verb, parents...)
}
