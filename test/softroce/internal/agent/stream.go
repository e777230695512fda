package agent

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"
)

const (
	window    = 256 << 10 // bytes of one stream that may be unacknowledged
	chunkSize = 32 << 10
)

// ErrBroken says that the connection to the guest ended.
var ErrBroken = errors.New("agent: connection to the guest is broken")

// outStream sends one byte stream and stays within its window.
type outStream struct {
	fw *frameWriter
	id uint32
	fd byte

	mu     sync.Mutex // guards credit and broken
	cond   *sync.Cond
	credit int
	broken bool
}

func newOutStream(fw *frameWriter, id uint32, fd byte) *outStream {
	s := &outStream{fw: fw, id: id, fd: fd, credit: window}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// copyFrom sends everything r yields and then the end of the stream.
func (s *outStream) copyFrom(r io.Reader) error {
	buf := make([]byte, chunkSize)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if !s.take(n) {
				return ErrBroken
			}
			if werr := s.fw.write(kindData, s.id, []byte{s.fd}, buf[:n]); werr != nil {
				return werr
			}
		}
		if err != nil {
			if werr := s.fw.write(kindEOF, s.id, []byte{s.fd}); werr != nil {
				return werr
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func (s *outStream) take(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.credit < n && !s.broken {
		s.cond.Wait()
	}
	s.credit -= n
	return !s.broken
}

func (s *outStream) ack(n int) {
	s.mu.Lock()
	s.credit += n
	s.mu.Unlock()
	s.cond.Broadcast()
}

func (s *outStream) abort() {
	s.mu.Lock()
	s.broken = true
	s.mu.Unlock()
	s.cond.Broadcast()
}

// inStream receives one byte stream, hands it to a writer and acknowledges.
// The sender's window bounds the queue.
type inStream struct {
	fw *frameWriter
	id uint32
	fd byte

	mu    sync.Mutex // guards queue and ended
	cond  *sync.Cond
	queue [][]byte
	ended bool
}

func newInStream(fw *frameWriter, id uint32, fd byte) *inStream {
	s := &inStream{fw: fw, id: id, fd: fd}
	s.cond = sync.NewCond(&s.mu)
	return s
}

func (s *inStream) push(b []byte) {
	s.mu.Lock()
	s.queue = append(s.queue, b)
	s.mu.Unlock()
	s.cond.Signal()
}

func (s *inStream) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.cond.Signal()
}

// copyTo returns after the end of the stream. When w fails the rest is thrown
// away, still acknowledged, and the first error returned: the sender must not hang.
func (s *inStream) copyTo(w io.Writer) error {
	var first error
	for {
		s.mu.Lock()
		for len(s.queue) == 0 && !s.ended {
			s.cond.Wait()
		}
		if len(s.queue) == 0 {
			s.mu.Unlock()
			return first
		}
		b := s.queue[0]
		s.queue = s.queue[1:]
		s.mu.Unlock()
		if first == nil && w != nil {
			_, first = w.Write(b)
		}
		var count [4]byte
		binary.BigEndian.PutUint32(count[:], uint32(len(b)))
		// A write error means a broken connection, which ends every stream.
		_ = s.fw.write(kindAck, s.id, []byte{s.fd}, count[:])
	}
}
