package ibv

// Constants of <rdma/rsocket.h> and of the Linux socket interface it speaks,
// here for every build so that package rsocket needs no build tags.
const (
	AFInet, AFInet6       = 2, 10
	SockStream, SockDgram = 1, 2

	SolSocket, SolTCP, SolIPv6, SolRDMA = 1, 6, 41, 0x10000

	RDMASQSize, RDMARQSize, RDMAInline, RDMAIOMapSize, RDMARoute = 0, 1, 2, 3, 4

	SoReuseAddr, SoError, SoSndBuf, SoRcvBuf, SoKeepAlive = 2, 4, 7, 8, 9
	TCPKeepIdle                                           = 4
	IPv6V6Only                                            = 26

	MsgPeek, MsgDontWait = 2, 0x40

	PollIn, PollOut, PollErr, PollHup, PollNval = 1, 4, 8, 16, 32

	ShutRd, ShutWr, ShutRdWr = 0, 1, 2

	FGetFl, FSetFl, ONonblock = 3, 4, 0x800

	ProtNone, ProtWrite = 0, 2
)

// SockAddrLen is the room for any socket address.
const SockAddrLen = 28

// PollFD has the layout of struct pollfd.
type PollFD struct {
	FD              int32
	Events, Revents int16
}

// FDSet has the layout of fd_set.
type FDSet [16]uint64

// Set adds fd, which is below 1024.
func (s *FDSet) Set(fd int) { s[fd/64] |= 1 << (fd % 64) }

// Has reports whether fd is in the set.
func (s *FDSet) Has(fd int) bool { return s[fd/64]>>(fd%64)&1 != 0 }
