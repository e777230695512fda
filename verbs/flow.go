package verbs

import (
	"syscall"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// FlowConfig is a steering rule: packets that all matches of Specs fit are
// received by the queue pair, or have the actions of Specs done to them.
//
// Source: struct ibv_flow_attr.
type FlowConfig struct {
	Type     FlowAttrType // 0: FlowAttrNormal, which Specs describe
	Priority uint16       // 0 is the highest
	Port     uint8        // counted from 1; required
	Flags    FlowFlags
	Specs    []FlowSpec
}

// Flow is a steering rule in effect.
type Flow struct {
	h     handle.Handle
	p     provider.Flow
	links []*handle.Handle // children of the actions and counters it uses; guarded by h's Close
}

// CreateFlow steers packets to a raw packet (or UD) queue pair. Actions and
// counters that Specs name stay in use until Close.
//
// Verb: ibv_create_flow(3).
func (q *QP) CreateFlow(cfg FlowConfig) (*Flow, error) {
	const verb = "ibv_create_flow"
	if cfg.Port == 0 {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "FlowConfig.Port is required"}
	}
	f := &Flow{}
	specs := make([]provider.FlowSpec, len(cfg.Specs))
	for i, s := range cfg.Specs {
		if s == nil {
			f.unlink()
			return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "a specification is nil"}
		}
		var used *handle.Handle
		if specs[i], used = s.encode(); used != nil {
			l := new(handle.Handle)
			if err := l.Init("verbs.Flow use", used); err != nil {
				f.unlink()
				return nil, verbErr(verb, err)
			}
			f.links = append(f.links, l)
		}
		if specs[i].Size == 0 {
			f.unlink()
			return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "an action without its object"}
		}
	}
	attr, err := provider.AppendFlow(nil, provider.FlowRule{Type: cfg.Type, Priority: cfg.Priority, Port: cfg.Port, Flags: cfg.Flags}, specs)
	if err != nil {
		f.unlink()
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: err.Error()}
	}
	p, err := createRare(&q.h, verb, q.p, func(i provider.FlowCreator) (provider.Flow, error) { return i.CreateFlow(attr) })
	if err != nil {
		f.unlink()
		return nil, err
	}
	f.p = p
	if err := adopt(&f.h, "verbs.Flow", verb, p, &q.h); err != nil {
		f.unlink()
		return nil, err
	}
	watch(f, &f.h)
	return f, nil
}

func (f *Flow) unlink() {
	for _, l := range f.links {
		l.Abandon()
	}
	f.links = nil
}

// Close removes the rule.
//
// Verb: ibv_destroy_flow(3).
func (f *Flow) Close() error {
	return verbErr("ibv_destroy_flow", f.h.Close(func() error {
		if err := f.p.Close(); err != nil {
			return err
		}
		f.unlink()
		return nil
	}))
}
