package verbs

import (
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"github.com/zrdma/zrdma/internal/provider"
)

// ReregMRErrCode is what ibv_rereg_mr says beside the errno.
//
// Source: enum ibv_rereg_mr_err_code.
type ReregMRErrCode = provider.ReregMRErrCode

// Values of ReregMRErrCode.
const (
	ReregMRErrInput           = provider.ReregMRErrInput
	ReregMRErrDontForkNew     = provider.ReregMRErrDontForkNew
	ReregMRErrDoForkOld       = provider.ReregMRErrDoForkOld
	ReregMRErrCmd             = provider.ReregMRErrCmd
	ReregMRErrCmdAndDoForkNew = provider.ReregMRErrCmdAndDoForkNew
)

// ReregState is what became of a region whose Rereg failed.
type ReregState int

// Values of ReregState.
const (
	ReregOldValid  ReregState = iota // nothing changed
	ReregNewValid                    // the change is in effect; only fork protection of the old memory failed
	ReregUndefined                   // the region must not be used any more, only closed
)

// String says it in words.
func (s ReregState) String() string {
	switch s {
	case ReregOldValid:
		return "the old registration is still valid"
	case ReregNewValid:
		return "the new registration is valid"
	}
	return "the region must not be used any more"
}

// ReregError is a Rereg that failed. It unwraps to the *Error of the verb.
type ReregError struct {
	State ReregState
	Code  ReregMRErrCode // 0 when the verb was not reached
	Err   error
}

func (e *ReregError) Error() string { return e.Err.Error() + ": " + e.State.String() }

// Unwrap gives the *Error.
func (e *ReregError) Unwrap() error { return e.Err }

func reregState(c ReregMRErrCode) ReregState {
	switch c {
	case ReregMRErrInput, ReregMRErrDontForkNew:
		return ReregOldValid
	case ReregMRErrDoForkOld:
		return ReregNewValid
	}
	return ReregUndefined
}

// ReregConfig is what Rereg changes; its flags say which fields count.
type ReregConfig struct {
	Buf    []byte      // ReregMRChangeTranslation: the new memory
	PD     *PD         // ReregMRChangePd: the new domain
	Access AccessFlags // ReregMRChangeAccess: the new rights
}

// reregMu serialises Rereg, which replaces fields of the region.
var reregMu sync.Mutex

// Rereg changes memory, domain or rights of a region in place, which may be
// faster than to register anew. The keys may change: read them again. No work
// request that uses the region may be under way, and no other method of it may
// run meanwhile.
//
// A failure of the verb is a *ReregError that says whether the region is still
// what it was. Where the state is ReregUndefined both memories stay pinned until
// Close. A region stays a child of its former domain too.
//
// Verb: ibv_rereg_mr(3).
func (m *MR) Rereg(flags ReregMRFlags, cfg ReregConfig) error {
	const verb = "ibv_rereg_mr"
	if flags == 0 || flags&ReregMRChangeTranslation != 0 && len(cfg.Buf) == 0 || flags&ReregMRChangePd != 0 && cfg.PD == nil {
		return &ReregError{Err: &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "a flag without its field of ReregConfig, or no flag at all"}}
	}
	reregMu.Lock()
	defer reregMu.Unlock()
	if err := enter(&m.h, verb); err != nil {
		return err
	}
	defer m.h.Exit()
	r, ok := m.p.(provider.Reregistrar)
	if !ok {
		return &ReregError{Err: verbErr(verb, errUnsupported)}
	}
	var pd provider.PD
	if flags&ReregMRChangePd != 0 {
		if cfg.PD != m.d {
			if err := m.h.AddParent(&cfg.PD.h); err != nil {
				return &ReregError{Err: verbErr(verb, err)}
			}
		}
		pd = cfg.PD.p
	}
	var a, n uint64
	var pin runtime.Pinner
	if flags&ReregMRChangeTranslation != 0 {
		pin.Pin(unsafe.SliceData(cfg.Buf))
		a, n = addr(cfg.Buf), uint64(len(cfg.Buf))
	}
	code, err := r.Rereg(flags, pd, a, n, cfg.Access)
	if err == nil {
		m.changed(flags, cfg, pin)
		return nil
	}
	e := &ReregError{State: reregState(ReregMRErrCode(code)), Code: ReregMRErrCode(code), Err: regHint(verb, err, n)}
	switch e.State {
	case ReregOldValid:
		pin.Unpin()
	case ReregNewValid:
		m.changed(flags, cfg, pin)
	case ReregUndefined:
		// The device may be using either memory.
		if flags&ReregMRChangeTranslation != 0 && m.buf != nil {
			pin.Pin(unsafe.SliceData(m.buf))
		}
		m.pin.Unpin()
		m.pin = pin
	}
	return e
}

func (m *MR) changed(flags ReregMRFlags, cfg ReregConfig, pin runtime.Pinner) {
	if flags&ReregMRChangePd != 0 {
		m.d = cfg.PD
	}
	if flags&ReregMRChangeTranslation != 0 {
		m.pin.Unpin()
		m.pin, m.buf = pin, cfg.Buf
		m.addr, m.length = addr(cfg.Buf), uint64(len(cfg.Buf))
		m.iova = m.addr
	}
}
