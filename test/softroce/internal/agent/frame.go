package agent

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// A frame on the wire is a 4-byte big-endian length of all that follows, one
// byte of kind, a 4-byte id (the process it belongs to) and the payload.
const (
	headLen  = 4 + 1 + 4
	maxFrame = 1 << 20
)

type kind byte

const (
	kindHello   kind = iota + 1 // guest: JSON Hello, once, when the guest is ready
	kindStart                   // host: JSON Request
	kindStarted                 // guest: JSON startReply
	kindData                    // both: one byte of stream, bytes
	kindEOF                     // both: one byte of stream
	kindAck                     // both: one byte of stream, 4 bytes of count
	kindSignal                  // host: 4 bytes of signal number
	kindExit                    // guest: JSON Status
	kindKmsg                    // guest: a piece of the kernel's log
	kindSync                    // host: asks for a marker in the kernel's log
)

type frame struct {
	kind kind
	id   uint32
	body []byte
}

// frameWriter writes whole frames; its lock guards the order of bytes on w.
type frameWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (fw *frameWriter) write(k kind, id uint32, parts ...[]byte) error {
	n := headLen
	for _, p := range parts {
		n += len(p)
	}
	if n > maxFrame {
		return fmt.Errorf("agent: frame of %d bytes is over the limit of %d", n, maxFrame)
	}
	b := make([]byte, headLen, n)
	binary.BigEndian.PutUint32(b, uint32(n-4))
	b[4] = byte(k)
	binary.BigEndian.PutUint32(b[5:], id)
	for _, p := range parts {
		b = append(b, p...)
	}
	fw.mu.Lock()
	defer fw.mu.Unlock()
	for len(b) > 0 {
		n, err := fw.w.Write(b)
		if err != nil {
			return fmt.Errorf("agent: write: %w", err)
		}
		b = b[n:]
	}
	return nil
}

func (fw *frameWriter) writeJSON(k kind, id uint32, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("agent: encode: %w", err)
	}
	return fw.write(k, id, b)
}

func readFrame(r io.Reader) (frame, error) {
	var head [headLen]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < headLen-4 || n > maxFrame-4 {
		return frame{}, fmt.Errorf("agent: frame length %d out of range", n)
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return frame{}, unexpected(err)
	}
	f := frame{kind: kind(head[4]), id: binary.BigEndian.Uint32(head[5:])}
	f.body = make([]byte, n-(headLen-4))
	if _, err := io.ReadFull(r, f.body); err != nil {
		return frame{}, unexpected(err)
	}
	return f, nil
}

// unexpected makes an EOF inside a frame distinguishable from one between frames.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
