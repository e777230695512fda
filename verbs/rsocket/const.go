package rsocket

import "github.com/zrdma/zrdma/internal/ibv"

// Address families and socket types of New.
const (
	AFInet  = ibv.AFInet
	AFInet6 = ibv.AFInet6
	Stream  = ibv.SockStream
	Dgram   = ibv.SockDgram
)

// Levels and names of SetSockOpt and GetSockOpt; values are C ints.
const (
	SolSocket     = ibv.SolSocket
	SoReuseAddr   = ibv.SoReuseAddr
	SoError       = ibv.SoError
	SoSndBuf      = ibv.SoSndBuf
	SoRcvBuf      = ibv.SoRcvBuf
	SoKeepAlive   = ibv.SoKeepAlive
	SolTCP        = ibv.SolTCP
	TCPKeepIdle   = ibv.TCPKeepIdle // seconds
	SolIPv6       = ibv.SolIPv6
	IPv6V6Only    = ibv.IPv6V6Only
	SolRDMA       = ibv.SolRDMA
	RDMASQSize    = ibv.RDMASQSize    // work requests; before Connect or Listen
	RDMARQSize    = ibv.RDMARQSize    // work requests; before Connect or Listen
	RDMAInline    = ibv.RDMAInline    // bytes; before Connect or Listen
	RDMAIOMapSize = ibv.RDMAIOMapSize // buffers the peer may map here; before Connect or Listen
	RDMARoute     = ibv.RDMARoute     // struct ibv_path_data
)

// Flags of Recv and Send. MsgDontWait is always in force.
const (
	MsgPeek     = ibv.MsgPeek
	MsgDontWait = ibv.MsgDontWait
)

// Events of Poll and Wait; ErrEvent and HupEvent are reported unasked.
const (
	In       = ibv.PollIn
	Out      = ibv.PollOut
	ErrEvent = ibv.PollErr
	HupEvent = ibv.PollHup
)

// Directions of Shutdown.
const (
	ShutRd   = ibv.ShutRd
	ShutWr   = ibv.ShutWr
	ShutRdWr = ibv.ShutRdWr
)

// Commands and the flag of Fcntl.
const (
	FGetFl    = ibv.FGetFl
	FSetFl    = ibv.FSetFl
	ONonblock = ibv.ONonblock
)

// Protections of IOMap.
const (
	ProtNone  = ibv.ProtNone  // local use only
	ProtWrite = ibv.ProtWrite // the peer may write
)

// MaxDatagram is the longest payload of a datagram to an IPv6 peer; IPv4 takes
// 16 bytes more. The path's MTU may allow less: Soft-RoCE on an Ethernet of
// 1500 bytes has 1024, and drops what is longer without an error.
const MaxDatagram = 2048 - 28
