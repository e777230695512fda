package rdmacm

import "encoding/binary"

// Levels and names of options.
//
// Source: RDMA_OPTION_* of rdma_cma.h.
const (
	OptionID           = 0
	OptionIB           = 1
	OptionIDTOS        = 0
	OptionIDReuseAddr  = 1
	OptionIDAFOnly     = 2
	OptionIDAckTimeout = 3
	OptionIBPath       = 1
)

// SetOption sets an option by its number and its bytes in host order.
//
// Verb: rdma_set_option(3).
func (x *ID) SetOption(level, name int, value []byte) error {
	return x.call("rdma_set_option", func() error { return x.p.SetOption(level, name, value) })
}

func (x *ID) setBool(name int, on bool) error {
	var v uint32
	if on {
		v = 1
	}
	return x.SetOption(OptionID, name, binary.NativeEndian.AppendUint32(nil, v))
}

// SetTOS sets the type of service of the ID's packets; before the route is resolved.
//
// Verb: rdma_set_option(3).
func (x *ID) SetTOS(tos uint8) error { return x.SetOption(OptionID, OptionIDTOS, []byte{tos}) }

// SetReuseAddr lets several IDs bind to one address.
//
// Verb: rdma_set_option(3).
func (x *ID) SetReuseAddr(on bool) error { return x.setBool(OptionIDReuseAddr, on) }

// SetAFOnly keeps an IPv6 listener from taking IPv4 connections; before binding.
//
// Verb: rdma_set_option(3).
func (x *ID) SetAFOnly(on bool) error { return x.setBool(OptionIDAFOnly, on) }

// SetAckTimeout sets the wait for an acknowledgement, as 4.096 us * 2^t with t to
// 31; before the route is resolved or the request accepted.
//
// Verb: rdma_set_option(3).
func (x *ID) SetAckTimeout(t uint8) error {
	return x.SetOption(OptionID, OptionIDAckTimeout, []byte{t})
}
