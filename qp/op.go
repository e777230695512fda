package qp

import (
	"fmt"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/verbs"
)

// Kind is what an operation does.
type Kind uint8

// Values of Kind.
const (
	Send           Kind = iota + 1 // a message; a receive of the peer takes it
	Write                          // into memory of the peer
	WriteImm                       // and a message with an immediate and no data
	Read                           // from memory of the peer
	CompareAndSwap                 // 8 bytes of the peer's, atomically
	FetchAdd                       // 8 bytes of the peer's, atomically
	control                        // credits, probes
	local                          // binds and invalidations
)

// String is the name of the operation.
func (k Kind) String() string {
	switch k {
	case Send:
		return "Send"
	case Write:
		return "Write"
	case WriteImm:
		return "WriteImm"
	case Read:
		return "Read"
	case CompareAndSwap:
		return "CompareAndSwap"
	case FetchAdd:
		return "FetchAdd"
	case control:
		return "control"
	}
	return fmt.Sprintf("Kind(%d)", k)
}

// Op is one operation of a batch.
type Op struct {
	Kind Kind
	// Bufs is local memory, read by Send, Write and WriteImm and written by Read.
	// Posting takes it: see package mr. Atomics need one of 8 bytes, for what was
	// there before, in the host's byte order.
	Bufs []mr.Buf
	// Data is sent instead of Bufs: any memory, at most Conn.MaxInline bytes, free
	// again when Post returns.
	Data []byte

	Remote Remote // of one-sided operations: as long as Bufs, or longer
	Imm    uint32 // WriteImm; Send on a raw connection
	HasImm bool   // Send on a raw connection: with Imm

	Add           uint64 // FetchAdd
	Compare, Swap uint64 // CompareAndSwap

	// Invalidate makes a Send take away a key of the peer's, 0 for none: a window
	// that it has granted for what this message answers.
	Invalidate verbs.RKey

	// Join lets the doorbell of an operation posted alone, without Done, wait until
	// other goroutines that are ready to run have posted theirs, so that one doorbell
	// does for all. Set it where there are such: alone it costs a turn of the
	// scheduler. If the device refuses it after all, the connection ends.
	Join bool

	Fence     bool // wait for the READs and atomics before it
	Solicited bool // wake a peer that waits for solicited events only

	Token uint64 // the caller's, in Result
	// Done is called once by the engine's goroutine when the operation has
	// completed, well or not; it must not block. nil: nobody is told, and the
	// buffers are released.
	Done func(Result)
}

// Result is how an operation ended.
type Result struct {
	Conn  *Conn
	Kind  Kind
	Token uint64
	// Err is nil, a *verbs.CompletionError of this operation, or a *EndError when
	// the connection ended first.
	Err error
	// Bufs are the operation's buffers, given back whether it succeeded or not.
	// Valid during the call of Done; the Bufs in it are the callee's to keep. None
	// when the queue pair could not be destroyed: the device may use them still, and
	// they are leaked.
	Bufs []mr.Buf
}

// Release releases all Bufs, in a Done that has no use for them.
func (r Result) Release() {
	for _, b := range r.Bufs {
		_ = b.Release()
	}
}

// oneSided reports an operation that names memory of the peer.
func (k Kind) oneSided() bool { return k >= Write && k <= FetchAdd }

// takesReceive reports an operation that uses up a receive of the peer.
func (k Kind) takesReceive() bool { return k == Send || k == WriteImm }

func (o *Op) direction() mr.Direction {
	switch o.Kind {
	case Read, CompareAndSwap, FetchAdd:
		return mr.DeviceWrites
	}
	return mr.DeviceReads
}

// check says what is wrong with an operation before anything is taken.
func (o *Op) check(c *Conn) error {
	if o.Kind < Send || o.Kind > FetchAdd {
		return fmt.Errorf("qp: Op.Kind %d is no operation", o.Kind)
	}
	n := len(o.Data)
	for i := range o.Bufs {
		n += o.Bufs[i].Len()
	}
	switch {
	case len(o.Data) > 0 && len(o.Bufs) > 0:
		return fmt.Errorf("qp: %v: Op.Data and Op.Bufs exclude each other", o.Kind)
	case len(o.Data) > c.inline:
		return fmt.Errorf("qp: %v: %d bytes of Data; this connection takes %d inline, put more in a Buf", o.Kind, len(o.Data), c.inline)
	case len(o.Data) > 0 && o.Kind >= Read:
		return fmt.Errorf("qp: %v writes into local memory; it needs Bufs", o.Kind)
	case len(o.Bufs) > c.cfg.MaxSGE:
		return fmt.Errorf("qp: %v: %d buffers; Config.MaxSGE is %d", o.Kind, len(o.Bufs), c.cfg.MaxSGE)
	case (o.Kind == CompareAndSwap || o.Kind == FetchAdd) && (len(o.Bufs) != 1 || n != 8):
		return fmt.Errorf("qp: %v needs one buffer of 8 bytes", o.Kind)
	case (o.Kind == CompareAndSwap || o.Kind == FetchAdd) && o.Remote.Addr&7 != 0:
		return fmt.Errorf("qp: %v: the remote address %#x is not a multiple of 8", o.Kind, o.Remote.Addr)
	case o.Kind == Send && c.peer.maxMessage > 0 && n > c.peer.maxMessage:
		return fmt.Errorf("qp: a message of %d bytes; the peer takes %d", n, c.peer.maxMessage)
	case o.Kind == Send && n == 0 && !c.cfg.Raw:
		return fmt.Errorf("qp: an empty message; send at least one byte")
	case o.Kind.oneSided() && uint64(n) > uint64(o.Remote.Len):
		return fmt.Errorf("qp: %v of %d bytes; the remote memory has %d", o.Kind, n, o.Remote.Len)
	case o.HasImm && !c.cfg.Raw && o.Kind == Send:
		return fmt.Errorf("qp: the immediate of a Send carries credits; use Config.Raw or WriteImm")
	}
	return nil
}
