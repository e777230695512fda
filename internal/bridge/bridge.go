// Package bridge lets package verbs/rdmacm wrap a provider's objects into those
// of package verbs, and look inside them, without exporting either. verbs sets
// the variables in its init; an any is a pointer to the verbs type named.
package bridge

import (
	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

var (
	// Context gives the *verbs.Context around a borrowed context, the same one
	// each time. Its Close does nothing.
	Context func(provider.Context) any
	// PD wraps a domain that its owner frees: it is not tracked and Close does nothing.
	PD func(ctx any, p provider.PD) any
	// QP makes a *verbs.QP from what create returns, as a child of owner and of
	// the objects that are not nil.
	QP func(a QPArgs) (any, error)
	// SRQ makes a *verbs.SRQ from what create returns.
	SRQ func(pd any, owner *handle.Handle, in *provider.SRQInit, create func() (provider.SRQ, error)) (any, error)
	// MR makes a *verbs.MR over buf, pinned while it is open.
	MR func(pd any, buf []byte, create func(addr, length uint64) (provider.MR, error)) (any, error)

	// Device makes a *verbs.Device of a provider's.
	Device func(provider.Device) any
	// Handle is the life cycle of a *verbs.Context.
	Handle func(ctx any) *handle.Handle
	// IsSoft says whether a device's name is that of a software device.
	IsSoft func(name string) bool
	// SoftCM is the connection manager of the software device of that name, ""
	// for the default one; the device stays open until the process ends.
	SoftCM func(name string) (provider.CM, error)

	// Inner gives the provider's object inside a verbs object, nil for a nil one.
	Inner func(obj any) any
	// SetQPState tells a *verbs.QP what others did to it.
	SetQPState func(qp any, s provider.QPState)
	// Cookie is a number never given before.
	Cookie func() uint64
)

// QPArgs is what QP needs. PD is required; the others may be nil.
type QPArgs struct {
	Verb           string
	Ctx, PD        any
	SendCQ, RecvCQ any
	SRQ            any
	Owner          *handle.Handle
	In             *provider.QPInit
	State          provider.QPState
	Create         func() (provider.QP, error)
}
