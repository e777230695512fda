package rdmacm

import (
	"context"
	"errors"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
)

// AddrInfo is a result of GetAddrInfo, or a hint for it.
//
// Source: struct rdma_addrinfo.
type AddrInfo = provider.CMAddrInfo

// Values of AddrInfo.Flags.
//
// Source: RAI_* of rdma_cma.h.
const (
	RAIPassive     = 1
	RAINumericHost = 2
	RAINoRoute     = 4
	RAIFamily      = 8
)

// GetAddrInfo resolves names to addresses and, where a service for that runs,
// routes. The lookup cannot be interrupted: when ctx ends, it goes on in the
// background and its result is dropped. Where the software device is the default,
// Go's resolver looks, and ctx ends it.
//
// Verb: rdma_getaddrinfo(3), rdma_freeaddrinfo(3).
func GetAddrInfo(ctx context.Context, node, service string, hints *AddrInfo) ([]AddrInfo, error) {
	const verb = "rdma_getaddrinfo"
	var h AddrInfo
	if hints != nil {
		h = *hints
	}
	if _, soft := softByDefault(); soft { // a name needs no device
		l, err := resolve(ctx, node, service, h)
		return l, cmErr(verb, err)
	}
	m, err := manager(verb)
	if err != nil {
		return nil, err
	}
	r, ok := m.(provider.CMResolver)
	if !ok {
		return nil, cmErr(verb, syscall.EOPNOTSUPP)
	}
	type result struct {
		l   []AddrInfo
		err error
	}
	done := make(chan result, 1)
	go func() {
		l, err := r.GetAddrInfo(node, service, &h)
		done <- result{l, err}
	}()
	select {
	case r := <-done:
		return r.l, cmErr(verb, r.err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

const since60 = "needs rdma-core 60 and Linux 6.16 or newer"

// newer explains that the library or the kernel is too old.
func newer(verb string, err error) error {
	if errors.Is(err, errors.ErrUnsupported) {
		return hinted(verb, err, since60)
	}
	return cmErr(verb, err)
}

func (x *ID) async(verb string, f func(provider.CMAsyncInfo) error) error {
	if err := x.h.Enter(); err != nil {
		return closed(verb)
	}
	defer x.h.Exit()
	p, ok := x.p.(provider.CMAsyncInfo)
	if !ok {
		return newer(verb, syscall.EOPNOTSUPP)
	}
	return newer(verb, f(p))
}

// ResolveAddrInfo starts resolving names on the ID's channel: EventAddrinfoResolved
// or EventAddrinfoError follows. It is errors.ErrUnsupported before rdma-core 60.
//
// Verb: rdma_resolve_addrinfo(3).
func (x *ID) ResolveAddrInfo(node, service string, hints *AddrInfo) error {
	return x.async("rdma_resolve_addrinfo", func(p provider.CMAsyncInfo) error {
		return p.ResolveAddrInfo(node, service, hints)
	})
}

// QueryAddrInfo gives what ResolveAddrInfo found. It is errors.ErrUnsupported
// before rdma-core 60.
//
// Verb: rdma_query_addrinfo(3).
func (x *ID) QueryAddrInfo() (l []AddrInfo, err error) {
	err = x.async("rdma_query_addrinfo", func(p provider.CMAsyncInfo) (err error) {
		l, err = p.QueryAddrInfo()
		return err
	})
	return l, err
}

// WriteEvent puts an event of the caller's, EventUser, on the ID's channel. It is
// errors.ErrUnsupported before rdma-core 60.
//
// Verb: rdma_write_cm_event(3).
func (x *ID) WriteEvent(t EventType, status int32, arg uint64) error {
	return x.async("rdma_write_cm_event", func(p provider.CMAsyncInfo) error { return p.WriteEvent(t, status, arg) })
}
