package compare

import (
	"io"

	"golang.org/x/sys/unix"
)

// fileSender has the kernel put the file's pages into the stream.
type fileSender struct{ e *env }

func newFileSender(e *env) (*fileSender, error) { return &fileSender{e}, nil }

func (s *fileSender) send(block uint64) error {
	off, end := s.e.src.offset(block), s.e.src.offset(block)+int64(s.e.job.Block)
	for off < end {
		n, err := s.e.conn.writable("sendfile", func(fd int) (int, error) {
			return unix.Sendfile(fd, int(s.e.src.f.Fd()), &off, int(end-off))
		})
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *fileSender) close() error { return nil }
