//go:build !linux || !cgo

// Package ibv is the provider on libibverbs and librdmacm. This build is
// without cgo or not for Linux: there are no kernel devices.
package ibv

import (
	"errors"

	p "github.com/zrdma/zrdma/internal/provider"
)

var errStub = errors.New("this program was built without cgo or not for Linux: kernel RDMA devices need CGO_ENABLED=1 on Linux")

type stubError struct{}

func (stubError) Error() string        { return errStub.Error() }
func (stubError) Is(target error) bool { return target == errors.ErrUnsupported }

// Loaded reports that this build has no kernel devices.
func Loaded(bool) error { return stubError{} }

// Devices reports that this build has no kernel devices.
func Devices() ([]p.Device, error) { return nil, stubError{} }

// ForkInit has nothing to protect in this build.
func ForkInit() error { return stubError{} }

// IsForkInitialized reports that fork protection is off.
func IsForkInitialized() p.ForkStatus { return p.ForkDisabled }

func WCStatusStr(s p.WCStatus) string             { return s.String() }
func EventTypeStr(t p.EventType) string           { return t.String() }
func NodeTypeStr(t p.NodeType) string             { return t.String() }
func PortStateStr(s p.PortState) string           { return s.String() }
func RateToMult(p.Rate) int                       { return -1 }
func MultToRate(int) p.Rate                       { return p.RateMax }
func RateToMbps(p.Rate) int                       { return -1 }
func MbpsToRate(int) p.Rate                       { return p.RateMax }
func FlowLabelToUDPSport(fl uint32) uint16        { return uint16(fl&0x3fff^fl>>14&0x3f) | 0xC000 }
func IncRKey(k p.RKey) p.RKey                     { return k&^0xff | p.RKey(uint8(k)+1) }
func IsQPTSupported(mask uint32, t p.QPType) bool { return mask>>(t&31)&1 != 0 }
