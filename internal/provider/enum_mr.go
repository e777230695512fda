package provider

// AccessFlags are the rights a registration, window or queue pair gives.
//
// Source: enum ibv_access_flags.
type AccessFlags uint32

const (
	AccessLocalWrite      AccessFlags = 1 << 0
	AccessRemoteWrite     AccessFlags = 1 << 1
	AccessRemoteRead      AccessFlags = 1 << 2
	AccessRemoteAtomic    AccessFlags = 1 << 3
	AccessMWBind          AccessFlags = 1 << 4
	AccessZeroBased       AccessFlags = 1 << 5
	AccessOnDemand        AccessFlags = 1 << 6
	AccessHugeTLB         AccessFlags = 1 << 7
	AccessRelaxedOrdering AccessFlags = 1 << 20
	AccessFlushGlobal     AccessFlags = 1 << 8 // rdma-core 45
	AccessFlushPersistent AccessFlags = 1 << 9 // rdma-core 45
)

var namesAccessFlags = []name{
	{1, "ACCESS_LOCAL_WRITE"},
	{2, "ACCESS_REMOTE_WRITE"},
	{4, "ACCESS_REMOTE_READ"},
	{8, "ACCESS_REMOTE_ATOMIC"},
	{16, "ACCESS_MW_BIND"},
	{32, "ACCESS_ZERO_BASED"},
	{64, "ACCESS_ON_DEMAND"},
	{128, "ACCESS_HUGETLB"},
	{1048576, "ACCESS_RELAXED_ORDERING"},
	{256, "ACCESS_FLUSH_GLOBAL"},
	{512, "ACCESS_FLUSH_PERSISTENT"},
}

// String gives the name without its IBV_ prefix.
func (v AccessFlags) String() string { return flagString(namesAccessFlags, uint64(v), "AccessFlags") }

// ReregMRFlags say what Rereg changes.
//
// Source: enum ibv_rereg_mr_flags.
type ReregMRFlags uint32

const (
	ReregMRChangeTranslation ReregMRFlags = 1 << 0
	ReregMRChangePd          ReregMRFlags = 1 << 1
	ReregMRChangeAccess      ReregMRFlags = 1 << 2
)

var namesReregMRFlags = []name{
	{1, "REREG_MR_CHANGE_TRANSLATION"},
	{2, "REREG_MR_CHANGE_PD"},
	{4, "REREG_MR_CHANGE_ACCESS"},
}

// String gives the name without its IBV_ prefix.
func (v ReregMRFlags) String() string {
	return flagString(namesReregMRFlags, uint64(v), "ReregMRFlags")
}

// MWType is the type of a memory window.
//
// Source: enum ibv_mw_type.
type MWType uint32

const (
	MWType1 MWType = 1
	MWType2 MWType = 2
)

var namesMWType = []name{
	{1, "MW_TYPE_1"},
	{2, "MW_TYPE_2"},
}

// String gives the name without its IBV_ prefix.
func (v MWType) String() string { return enumString(namesMWType, uint64(v), "MWType") }
