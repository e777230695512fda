//go:build !linux || !cgo

package ibv

import (
	"syscall"

	p "github.com/zrdma/zrdma/internal/provider"
)

// CM reports that this build has no connection manager.
func CM() (p.CM, error) { return nil, stubError{} }

func CMEventStr(t p.CMEventType) string { return t.String() }

func CMSetErrno(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}
