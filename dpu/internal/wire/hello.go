package wire

import (
	"crypto/hmac"
	"crypto/sha256"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// ProofLen is the length of a proof in bytes: HMAC-SHA256.
const ProofLen = sha256.Size

// HelloBody is what the host says first. Epoch is that of the header.
type HelloBody struct {
	Nonce  [16]byte
	Writer [16]byte // under which its writes are numbered
	Slots  uint32   // operations at a time that it would like
	Lease  uint32   // microseconds of silence after which each side gives the other up
	Data   qp.Endpoint
	Tenant string // at most 255 bytes
}

// Append appends the body.
func (h *HelloBody) Append(b []byte) []byte {
	b = append(append(b, h.Nonce[:]...), h.Writer[:]...)
	b = le.AppendUint32(le.AppendUint32(b, h.Slots), h.Lease)
	e, _ := h.Data.MarshalBinary()
	b = append(append(b, e...), byte(len(h.Tenant)))
	return append(b, h.Tenant...)
}

// Decode reads the body.
func (h *HelloBody) Decode(b []byte) error {
	const fixed = 16 + 16 + 8 + qp.EndpointLen + 1
	if len(b) < fixed || len(b) != fixed+int(b[fixed-1]) {
		return malformed("a hello of %d bytes", len(b))
	}
	copy(h.Nonce[:], b)
	copy(h.Writer[:], b[16:])
	h.Slots, h.Lease = le.Uint32(b[32:]), le.Uint32(b[36:])
	if h.Slots == 0 || h.Slots > MaxSlots || h.Lease == 0 {
		return malformed("a hello with %d operations at a time and a lease of %d us", h.Slots, h.Lease)
	}
	if err := h.Data.UnmarshalBinary(b[40 : 40+qp.EndpointLen]); err != nil {
		return malformed("%v", err)
	}
	h.Tenant = string(b[fixed:])
	return nil
}

// WelcomeBody is the agent's answer.
type WelcomeBody struct {
	Nonce    [16]byte
	Slots    uint32 // operations at a time that it takes
	MaxBytes uint64 // of memory named by them
	MaxBlock uint32 // longest block
	Data     qp.Endpoint
	Proof    [ProofLen]byte // zero where the tenant has no secret
}

const welcomeLen = 16 + 4 + 8 + 4 + qp.EndpointLen + ProofLen

// Append appends the body.
func (w *WelcomeBody) Append(b []byte) []byte {
	b = append(b, w.Nonce[:]...)
	b = le.AppendUint32(b, w.Slots)
	b = le.AppendUint64(b, w.MaxBytes)
	b = le.AppendUint32(b, w.MaxBlock)
	e, _ := w.Data.MarshalBinary()
	return append(append(b, e...), w.Proof[:]...)
}

// Decode reads the body.
func (w *WelcomeBody) Decode(b []byte) error {
	if len(b) != welcomeLen {
		return malformed("a welcome of %d bytes", len(b))
	}
	copy(w.Nonce[:], b)
	w.Slots, w.MaxBytes, w.MaxBlock = le.Uint32(b[16:]), le.Uint64(b[20:]), le.Uint32(b[28:])
	if w.Slots == 0 || w.Slots > MaxSlots {
		return malformed("a welcome for %d operations at a time", w.Slots)
	}
	if err := w.Data.UnmarshalBinary(b[32 : 32+qp.EndpointLen]); err != nil {
		return malformed("%v", err)
	}
	copy(w.Proof[:], b[32+qp.EndpointLen:])
	return nil
}

// ProofBody is the host's proof and its status ring.
type ProofBody struct {
	Proof [ProofLen]byte
	Ring  mr.Remote
}

// Append appends the body.
func (p *ProofBody) Append(b []byte) []byte {
	b, _ = p.Ring.AppendBinary(append(b, p.Proof[:]...))
	return b
}

// Decode reads the body.
func (p *ProofBody) Decode(b []byte) error {
	if len(b) != ProofLen+mr.RemoteLen {
		return malformed("a proof of %d bytes", len(b))
	}
	copy(p.Proof[:], b)
	if err := p.Ring.UnmarshalBinary(b[ProofLen:]); err != nil {
		return malformed("%v", err)
	}
	return nil
}

// Sign is what proves that a side knows the secret: it covers both bodies, the
// welcome's without its proof, and who speaks. Without a secret it is zero.
func Sign(secret []byte, who string, hello, welcome []byte) (p [ProofLen]byte) {
	if len(secret) == 0 {
		return p
	}
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(who))
	for _, b := range [][]byte{hello, welcome[:welcomeLen-ProofLen]} {
		m.Write(le.AppendUint32(nil, uint32(len(b))))
		m.Write(b)
	}
	m.Sum(p[:0])
	return p
}

// Same compares two proofs in constant time.
func Same(a, b [ProofLen]byte) bool { return hmac.Equal(a[:], b[:]) }

// ByeBody says why a session ends.
type ByeBody struct {
	Code uint16 // package rpc's; 0: it was asked to
	Text string // at most 200 bytes
}

// Append appends the body.
func (y *ByeBody) Append(b []byte) []byte {
	return append(le.AppendUint16(b, y.Code), y.Text[:min(len(y.Text), 200)]...)
}

// Decode reads the body.
func (y *ByeBody) Decode(b []byte) error {
	if len(b) < 2 {
		return malformed("a bye of %d bytes", len(b))
	}
	y.Code, y.Text = le.Uint16(b), string(b[2:])
	return nil
}
