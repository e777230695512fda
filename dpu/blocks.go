package dpu

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rpc"
)

// Blocks is a store of blocks as a program uses it: a client of the server itself,
// or a Client that also knows an agent. Whoever calls it need not know which.
type Blocks interface {
	// Put stores the bytes of b under key. It takes b and returns the new right to
	// it; a zero Buf after an error, for the memory goes back to where it came from.
	Put(ctx context.Context, key string, b mr.Buf) (mr.Buf, error)
	// Get reads a block into b and verifies it. It takes b and returns the part that
	// the block fills; a zero Buf after an error.
	Get(ctx context.Context, key string, b mr.Buf) (mr.Buf, error)
	Stat(ctx context.Context, key string) (BlockInfo, error)
	// List is up to limit blocks whose keys come behind after, in order; none at the
	// end.
	List(ctx context.Context, after string, limit int) ([]BlockInfo, error)
	Delete(ctx context.Context, key string) error
}

// BlockInfo describes a block.
type BlockInfo struct {
	Key     string
	Size    uint32 // bytes
	Sum     uint32 // CRC-32C of the data
	Version uint64 // another one after every write
}

// Writer names a client of a store: 16 random bytes. The zero Writer is nobody.
type Writer [16]byte

// NewWriter makes one up.
func NewWriter() (w Writer) {
	_, _ = rand.Read(w[:])
	return w
}

// Token names one write, so that a server does it once, however often and by whom
// it is asked. The zero Token asks for nothing of that.
type Token struct {
	Writer Writer
	Seq    uint64 // of the write, among the writer's
	// Boot is the server's process, as Fence or an answer has told it.
	Boot uint64
	// Epoch is of the agent that sends the write for the writer; 0: the writer
	// itself, who is never fenced.
	Epoch  uint32
	Replay bool // it was sent before
}

// TokenLen is the length of an encoded Token in bytes.
const TokenLen = 40

// IsZero reports a Token that names nothing.
func (t Token) IsZero() bool { return t.Writer == Writer{} }

// AppendBinary appends the encoded Token. It never fails.
func (t Token) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, t.Writer[:]...)
	b = binary.LittleEndian.AppendUint64(b, t.Seq)
	b = binary.LittleEndian.AppendUint64(b, t.Boot)
	b = binary.LittleEndian.AppendUint32(b, t.Epoch)
	var f uint32
	if t.Replay {
		f = 1
	}
	return binary.LittleEndian.AppendUint32(b, f), nil
}

// UnmarshalBinary decodes a Token from exactly TokenLen bytes.
func (t *Token) UnmarshalBinary(b []byte) error {
	if len(b) != TokenLen {
		return fmt.Errorf("dpu: a token has %d bytes, not %d", TokenLen, len(b))
	}
	f := binary.LittleEndian.Uint32(b[36:])
	if f > 1 {
		return fmt.Errorf("dpu: a token with flags %#x", f)
	}
	*t = Token{Writer: Writer(b[:16]), Seq: binary.LittleEndian.Uint64(b[16:]), Boot: binary.LittleEndian.Uint64(b[24:]),
		Epoch: binary.LittleEndian.Uint32(b[32:]), Replay: f == 1}
	return nil
}

// TokenBlocks is Blocks of a server that keeps a Ledger. It is what makes it safe
// to do a write again whose fate is unknown.
type TokenBlocks interface {
	Blocks
	// PutToken is Put of the write t. sum is the CRC-32C of the data, or nil: it is
	// computed. It returns the server's Boot too.
	PutToken(ctx context.Context, key string, b mr.Buf, sum *uint32, t Token) (mr.Buf, uint64, error)
	DeleteToken(ctx context.Context, key string, t Token) (boot uint64, err error)
	// Fence makes the server refuse what agents of w with epochs below epoch send
	// from now on; what they had begun is not finished.
	Fence(ctx context.Context, w Writer, epoch uint32) (boot uint64, err error)
}

// Backend is what an agent needs of a store. It may be used from any goroutine. Its
// writes are sent once: where the answer gets lost the error is ErrIndeterminate.
type Backend interface {
	TokenBlocks
	// ReadAt fills b with the block from byte off on and returns the part that was
	// filled. With a version other than 0 it is ErrChanged when the block has another.
	// It takes b, as Get does.
	ReadAt(ctx context.Context, key string, off int, version uint64, b mr.Buf) (BlockInfo, mr.Buf, error)
	// PutPart brings the bytes from off on of a block of size bytes, which Commit
	// makes valid when all are there. Parts may come in any order, several at a time.
	PutPart(ctx context.Context, key string, size, off int, b mr.Buf, t Token) (mr.Buf, error)
	// Commit ends PutPart. sum is of the whole block.
	Commit(ctx context.Context, key string, size int, sum uint32, t Token) (boot uint64, err error)
	// Abort forgets what PutPart brought.
	Abort(ctx context.Context, t Token)
}

// Errors of stores and agents that callers branch on.
var (
	// ErrIndeterminate is rpc.ErrIndeterminate: a write was done once or not at all.
	ErrIndeterminate = rpc.ErrIndeterminate
	// ErrFenced: the write came from an agent whose epoch is over.
	ErrFenced = errors.New("dpu: fenced: the writer has taken its work back from this agent")
	// ErrStale: the server does not know any more whether the write was done: it was
	// started again since, or the write is too old.
	ErrStale = errors.New("dpu: the server does not know any more whether this write was done")
	// ErrChanged: the block was written while it was read.
	ErrChanged = errors.New("dpu: the block was changed while it was read")
	// ErrNoAgent: the path asked for needs an agent, and there is none that is well.
	ErrNoAgent = errors.New("dpu: no agent")
	// ErrAgentLost: the agent did not answer in time, or its connection ended.
	ErrAgentLost = errors.New("dpu: the agent is lost")
)
