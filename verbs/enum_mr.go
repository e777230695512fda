package verbs

import "github.com/zrdma/zrdma/internal/provider"

// The vocabulary of the field: the enumerations of <infiniband/verbs.h>, named
// as there without the IBV_ prefix. The values are the C values.

// AccessFlags are the rights a registration, window or queue pair gives.
//
// Source: enum ibv_access_flags.
type AccessFlags = provider.AccessFlags

// Values of AccessFlags.
const (
	AccessLocalWrite      = provider.AccessLocalWrite
	AccessRemoteWrite     = provider.AccessRemoteWrite
	AccessRemoteRead      = provider.AccessRemoteRead
	AccessRemoteAtomic    = provider.AccessRemoteAtomic
	AccessMWBind          = provider.AccessMWBind
	AccessZeroBased       = provider.AccessZeroBased
	AccessOnDemand        = provider.AccessOnDemand
	AccessHugeTLB         = provider.AccessHugeTLB
	AccessRelaxedOrdering = provider.AccessRelaxedOrdering
	AccessFlushGlobal     = provider.AccessFlushGlobal
	AccessFlushPersistent = provider.AccessFlushPersistent
)

// ReregMRFlags say what Rereg changes.
//
// Source: enum ibv_rereg_mr_flags.
type ReregMRFlags = provider.ReregMRFlags

// Values of ReregMRFlags.
const (
	ReregMRChangeTranslation = provider.ReregMRChangeTranslation
	ReregMRChangePd          = provider.ReregMRChangePd
	ReregMRChangeAccess      = provider.ReregMRChangeAccess
)

// MWType is the type of a memory window.
//
// Source: enum ibv_mw_type.
type MWType = provider.MWType

// Values of MWType.
const (
	MWType1 = provider.MWType1
	MWType2 = provider.MWType2
)
