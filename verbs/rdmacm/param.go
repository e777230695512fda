package rdmacm

import (
	"fmt"

	"github.com/zrdma/zrdma/internal/provider"
)

// Explicit is what to write into a field of ConnParam for a real zero.
const Explicit uint8 = 0xfe

// ConnParam are the parameters of a connection. The zero value is good.
//
// Source: struct rdma_conn_param.
type ConnParam struct {
	PrivateData        []byte // PSTCP: 56 bytes to connect, 196 to accept; PSUDP: 180 and 136
	ResponderResources uint8  // READs and atomics served at once; 0: the device's limit. Explicit: none
	InitiatorDepth     uint8  // READs and atomics outstanding at once; 0: the device's limit. Explicit: none
	FlowControl        bool   // end to end; ignored by rxe
	// RetryCount is how often a send is tried again, to 7; 0: 6, Explicit: never.
	// 7 never ends on rxe: a dead peer would not be noticed. Ignored by Accept,
	// where the peer's counts.
	RetryCount uint8
	// RNRRetryCount is how often a send is tried again when the peer has no
	// receive posted; 0: 7, which is endless; Explicit: never.
	RNRRetryCount uint8

	// For an ID without a queue pair of its own.
	SRQ bool
	QPN uint32
}

const (
	defaultRetry    = 6
	defaultRNRRetry = 7
	deviceLimit     = 0xff // RDMA_MAX_RESP_RES, RDMA_MAX_INIT_DEPTH
)

func orDefault(v, def uint8) uint8 {
	switch v {
	case 0:
		return def
	case Explicit:
		return 0
	}
	return v
}

// withDefaults gives the values as they go to the manager.
func (p ConnParam) withDefaults() ConnParam {
	p.ResponderResources = orDefault(p.ResponderResources, deviceLimit)
	p.InitiatorDepth = orDefault(p.InitiatorDepth, deviceLimit)
	p.RetryCount = orDefault(p.RetryCount, defaultRetry)
	p.RNRRetryCount = orDefault(p.RNRRetryCount, defaultRNRRetry)
	return p
}

func (p ConnParam) toProvider(verb string, max int) (*provider.CMConnParam, error) {
	if err := checkPrivate(verb, len(p.PrivateData), max); err != nil {
		return nil, err
	}
	p = p.withDefaults()
	if p.RetryCount > 7 || p.RNRRetryCount > 7 {
		return nil, invalid(verb, "retry counts go to 7")
	}
	if p.QPN > 1<<24-1 {
		return nil, invalid(verb, "a queue pair number has 24 bits")
	}
	return &provider.CMConnParam{
		Private: p.PrivateData, ResponderResources: p.ResponderResources, InitiatorDepth: p.InitiatorDepth,
		FlowControl: p.FlowControl, RetryCount: p.RetryCount, RNRRetryCount: p.RNRRetryCount, SRQ: p.SRQ, QPN: p.QPN,
	}, nil
}

type message int

const (
	msgConnect message = iota
	msgAccept
	msgReject
)

// limit is how much private data a message carries. A request shares its room
// with the manager's own header of 36 bytes.
func limit(ps PortSpace, m message) int {
	if ps == PSUDP || ps == PSIPoIB {
		return [...]int{180, 136, 136}[m]
	}
	if ps == PSIB {
		return [...]int{92, 196, 148}[m]
	}
	return [...]int{56, 196, 148}[m]
}

func checkPrivate(verb string, n, max int) error {
	if n > max {
		return invalid(verb, fmt.Sprintf("%d bytes of private data, and the message carries %d", n, max))
	}
	return nil
}
