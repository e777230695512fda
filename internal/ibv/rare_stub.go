//go:build !linux || !cgo

package ibv

import p "github.com/zrdma/zrdma/internal/provider"

// ImportDevice reports that this build has no kernel devices.
func ImportDevice(int) (p.Context, error) { return nil, stubError{} }

// WROpcodeStr is the constant's name.
func WROpcodeStr(op p.WROpcode) string { return op.String() }
