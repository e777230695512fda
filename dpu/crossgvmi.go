//go:build crossgvmi

package dpu

import (
	"context"
	"crypto/rand"

	"github.com/zrdma/zrdma/mr"
)

// AliasKeyLen is the length of the key of one alias in bytes.
const AliasKeyLen = 32

// NewAliasKey makes a random key for one alias. A key is for one grant: a fixed one
// would let every function of the card in.
func NewAliasKey() (k [AliasKeyLen]byte, err error) {
	_, err = rand.Read(k[:])
	return k, err
}

// Alias names memory of a host so that a function of the same card may use it as if it
// were its own (cross-GVMI: a memory key with ALLOW_OTHER_VHCA_ACCESS, and an alias
// object made from it).
//
// NOT VERIFIED ON HARDWARE. This is the shape that an implementation over DEVX would
// have to fill; it has never run.
type Alias struct {
	VHCA uint16 // the host's function
	MKey uint32
	Key  [AliasKeyLen]byte
	Addr uint64
	Len  uint32
}

// AliasExporter is the host's side: NOT VERIFIED ON HARDWARE.
type AliasExporter interface {
	// Export lets the card's other functions use the memory of b, in one direction,
	// until Withdraw. It takes b, as mr.Granter.Grant does.
	Export(ctx context.Context, b mr.Buf, d mr.Direction) (Alias, error)
	// Withdraw ends it and returns the right to the memory when no function of the
	// card can touch it any more; the fences of mr.Grant.Revoke are the measure.
	Withdraw(ctx context.Context, a Alias) (mr.Buf, error)
}

// AliasImporter is the agent's side: NOT VERIFIED ON HARDWARE.
type AliasImporter interface {
	// Import makes the host's memory a Buf of the agent's, which a Backend fills or
	// reads as it does the agent's own: the data then goes past the agent's memory.
	// Release of the Buf destroys the alias.
	Import(ctx context.Context, a Alias) (mr.Buf, error)
}
