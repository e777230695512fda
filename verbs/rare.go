package verbs

import (
	"errors"
	"syscall"

	"github.com/zrdma/zrdma/internal/handle"
)

// createRare is create for what only some providers have: p is the provider's
// object, I the optional interface looked for.
func createRare[I, O any](h *handle.Handle, verb string, p any, f func(I) (O, error)) (O, error) {
	return create(h, verb, func() (O, error) {
		i, ok := p.(I)
		if !ok {
			var zero O
			return zero, errUnsupported
		}
		return f(i)
	})
}

// doRare is createRare for a verb that makes nothing.
func doRare[I any](h *handle.Handle, verb string, p any, f func(I) error) error {
	_, err := createRare(h, verb, p, func(i I) (struct{}, error) { return struct{}{}, f(i) })
	return err
}

// adopt makes p's wrapper a child of parents, or closes p.
func adopt(h *handle.Handle, kind, verb string, p interface{ Close() error }, parents ...*handle.Handle) error {
	if err := h.Init(kind, parents...); err != nil {
		p.Close()
		return verbErr(verb, err)
	}
	return nil
}

// since names the rdma-core that a verb came with, where the library lacks it.
func since(version string, err error) error {
	var e *Error
	if errors.As(err, &e) && e.Cause == syscall.ENOSYS {
		e.Hint = "the libibverbs of this machine lacks it: it came with rdma-core " + version
	}
	return err
}
