package rpc

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zrdma/zrdma/qp"
)

// hello is what both sides say first, as type-length-value fields: unknown ones
// are skipped, so that a later minor version can add some.
type hello struct {
	major, minor uint16
	bootID       uint64 // of the process: a restarted peer has another
	epoch        uint32 // of the session, chosen by the client
	slot         uint32 // longest message taken, in bytes
	calls        uint32 // calls at a time that the server takes
	nonce        [16]byte
	data         []qp.Endpoint // of the data queue pairs
	rails, first uint16        // devices, 0: one; and which of them this session begins on
	mac          []byte        // HMAC-SHA256, where a secret was configured; the last field
	said         []byte        // of a hello received: all that came before mac, known fields or not
}

const (
	major = 1
	minor = 1

	tlvVersion = 1
	tlvBoot    = 2
	tlvEpoch   = 3
	tlvLimits  = 4
	tlvNonce   = 5
	tlvData    = 6
	tlvMAC     = 7
	tlvRails   = 8

	maxData = 32
)

func (h *hello) encode() []byte {
	le := binary.LittleEndian
	var b []byte
	field := func(t uint16, v []byte) {
		b = le.AppendUint16(b, t)
		b = le.AppendUint16(b, uint16(len(v)))
		b = append(b, v...)
	}
	field(tlvVersion, le.AppendUint16(le.AppendUint16(nil, h.major), h.minor))
	field(tlvBoot, le.AppendUint64(nil, h.bootID))
	field(tlvEpoch, le.AppendUint32(nil, h.epoch))
	field(tlvLimits, le.AppendUint32(le.AppendUint32(nil, h.slot), h.calls))
	field(tlvNonce, h.nonce[:])
	for _, e := range h.data {
		p, _ := e.MarshalBinary()
		field(tlvData, p)
	}
	if h.rails > 1 {
		field(tlvRails, le.AppendUint16(le.AppendUint16(nil, h.rails), h.first))
	}
	if h.mac != nil {
		field(tlvMAC, h.mac)
	}
	return b
}

var errHello = errors.New("rpc: a hello that makes no sense")

func (h *hello) decode(b []byte) error {
	le := binary.LittleEndian
	all := b
	for len(b) > 0 {
		if len(b) < 4 || h.mac != nil {
			return errHello
		}
		t, n := le.Uint16(b), int(le.Uint16(b[2:]))
		if len(b) < 4+n {
			return errHello
		}
		v := b[4 : 4+n]
		b = b[4+n:]
		want := map[uint16]int{tlvVersion: 4, tlvBoot: 8, tlvEpoch: 4, tlvLimits: 8, tlvNonce: 16, tlvData: qp.EndpointLen, tlvMAC: sha256.Size, tlvRails: 4}[t]
		if want != 0 && n != want {
			return errHello
		}
		switch t {
		case tlvVersion:
			h.major, h.minor = le.Uint16(v), le.Uint16(v[2:])
		case tlvBoot:
			h.bootID = le.Uint64(v)
		case tlvEpoch:
			h.epoch = le.Uint32(v)
		case tlvLimits:
			h.slot, h.calls = le.Uint32(v), le.Uint32(v[4:])
		case tlvNonce:
			copy(h.nonce[:], v)
		case tlvData:
			var e qp.Endpoint
			if len(h.data) == maxData {
				return errHello
			}
			if err := e.UnmarshalBinary(v); err != nil {
				return err
			}
			h.data = append(h.data, e)
		case tlvRails:
			if h.rails, h.first = le.Uint16(v), le.Uint16(v[2:]); h.rails > maxRails || h.first >= h.rails {
				return errHello
			}
		case tlvMAC:
			h.mac = append([]byte(nil), v...)
			h.said = append([]byte(nil), all[:len(all)-len(b)-4-n]...)
		}
	}
	if h.said == nil {
		h.said = append([]byte{}, all...)
	}
	if h.major != major {
		return &Error{Code: FailedPrecondition, Method: "hello", Cause: ErrVersion,
			Message: fmt.Sprintf("this side speaks version %d.%d of the protocol, the peer %d.%d; upgrade the older one", major, minor, h.major, h.minor)}
	}
	if h.slot < 256 || h.slot > maxMessage || h.calls == 0 || h.calls > 1<<16 {
		return errHello
	}
	return nil
}

// sign is the proof that a side knows the secret, bound to both hellos.
func sign(secret []byte, who string, client, server *hello) []byte {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(who))
	for _, h := range []*hello{client, server} {
		// What the peer said and not what was understood of it: a later minor version
		// says more.
		b := h.said
		if b == nil {
			c := *h
			c.mac = nil
			b = c.encode()
		}
		m.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(b))))
		m.Write(b)
	}
	return m.Sum(nil)
}
