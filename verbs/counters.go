package verbs

import (
	"syscall"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// Counters count the packets or bytes that steering rules match: see CountAction.
type Counters struct {
	h handle.Handle
	p provider.Counters
}

// CreateCounters makes a set of flow counters, none attached.
//
// Verb: ibv_create_counters(3).
func (c *Context) CreateCounters() (*Counters, error) {
	const verb = "ibv_create_counters"
	p, err := createRare(&c.h, verb, c.p, provider.CountersCreator.CreateCounters)
	if err != nil {
		return nil, err
	}
	o := &Counters{p: p}
	if err := adopt(&o.h, "verbs.Counters", verb, p, &c.h); err != nil {
		return nil, err
	}
	watch(o, &o.h)
	return o, nil
}

// AttachPointFlow makes the counter at index count packets or bytes. A nil flow
// attaches before any rule uses the counters; else it is a rule that does.
//
// Verb: ibv_attach_counters_point_flow(3).
func (o *Counters) AttachPointFlow(what CounterDescription, index uint32, f *Flow) error {
	const verb = "ibv_attach_counters_point_flow"
	if err := enter(&o.h, verb); err != nil {
		return err
	}
	defer o.h.Exit()
	var p provider.Flow
	if f != nil {
		if err := enter(&f.h, verb); err != nil {
			return err
		}
		defer f.h.Exit()
		p = f.p
	}
	return verbErr(verb, o.p.Attach(what, index, p))
}

// Read reads the first len(v) counters.
//
// Verb: ibv_read_counters(3).
func (o *Counters) Read(v []uint64, flags ReadCountersFlags) error {
	const verb = "ibv_read_counters"
	if len(v) == 0 {
		return &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "no room for a counter"}
	}
	if err := enter(&o.h, verb); err != nil {
		return err
	}
	defer o.h.Exit()
	return verbErr(verb, o.p.Read(v, flags))
}

// Close frees the counters: ErrInUse while a rule uses them.
//
// Verb: ibv_destroy_counters(3).
func (o *Counters) Close() error { return verbErr("ibv_destroy_counters", o.h.Close(o.p.Close)) }
