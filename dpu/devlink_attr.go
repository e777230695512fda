package dpu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
)

// The attributes of devlink that the netlink library passes over: the numbers of
// <linux/devlink.h>.
const (
	dlBus         = 1
	dlDevice      = 2
	dlIndex       = 3
	dlNetdev      = 7
	dlRDMA        = 8
	dlFlavour     = 77
	dlNumber      = 78
	dlSerial      = 99
	dlFixed       = 100
	dlRunning     = 101
	dlVersionName = 103
	dlVersion     = 104
	dlPF          = 127
	dlVF          = 128
	dlFunction    = 145
	dlBoardSerial = 146
	dlExternal    = 149
	dlController  = 150
	dlSF          = 164

	dlFunctionHWAddr = 1
)

var errAttr = errors.New("dpu: devlink: malformed netlink attribute")

// attrs calls f for every attribute of b. Values are aligned to 4 bytes.
func attrs(b []byte, f func(typ uint16, v []byte)) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return fmt.Errorf("%w: %d bytes left over", errAttr, len(b))
		}
		n, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&0x3fff
		if n < 4 || n > len(b) {
			return fmt.Errorf("%w: type %d has length %d of %d", errAttr, typ, n, len(b))
		}
		f(typ, b[4:n])
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

func attrText(v []byte) string {
	for i, c := range v {
		if c == 0 {
			return string(v[:i])
		}
	}
	return string(v)
}

func attr16(v []byte) *uint16 {
	if len(v) != 2 {
		return nil
	}
	n := binary.NativeEndian.Uint16(v)
	return &n
}

func attr32(v []byte) *uint32 {
	if len(v) != 4 {
		return nil
	}
	n := binary.NativeEndian.Uint32(v)
	return &n
}

// parsePort reads a port message without its generic netlink header.
func parsePort(b []byte) (p DevlinkPort, err error) {
	var nested error
	err = attrs(b, func(typ uint16, v []byte) {
		switch typ {
		case dlBus:
			p.Bus = attrText(v)
		case dlDevice:
			p.Device = attrText(v)
		case dlIndex:
			if n := attr32(v); n != nil {
				p.Index = *n
			}
		case dlNetdev:
			p.Netdev = attrText(v)
		case dlRDMA:
			p.RDMA = attrText(v)
		case dlFlavour:
			if n := attr16(v); n != nil {
				p.Flavour = flavours[*n]
			}
		case dlNumber:
			p.Number = attr32(v)
		case dlController:
			p.Controller = attr32(v)
		case dlExternal:
			p.External = len(v) == 1 && v[0] != 0
		case dlPF:
			p.PF = attr16(v)
		case dlVF:
			p.VF = attr16(v)
		case dlSF:
			p.SF = attr32(v)
		case dlFunction:
			nested = attrs(v, func(typ uint16, v []byte) {
				if typ == dlFunctionHWAddr && len(v) == 6 {
					p.HWAddr = net.HardwareAddr(v).String()
				}
			})
		}
	})
	return p, errors.Join(err, nested)
}

// parseInfo reads an info message: fixed and running versions. What is stored for
// the next boot is left out, it is not what runs.
func parseInfo(b []byte) (map[string]string, error) {
	info := map[string]string{}
	var nested error
	err := attrs(b, func(typ uint16, v []byte) {
		switch typ {
		case dlSerial:
			info["serial_number"] = attrText(v)
		case dlBoardSerial:
			info["board.serial_number"] = attrText(v)
		case dlFixed, dlRunning:
			var name, value string
			nested = errors.Join(nested, attrs(v, func(typ uint16, v []byte) {
				switch typ {
				case dlVersionName:
					name = attrText(v)
				case dlVersion:
					value = attrText(v)
				}
			}))
			if name != "" && (typ == dlRunning || info[name] == "") {
				info[name] = value
			}
		}
	})
	return info, errors.Join(err, nested)
}
