package compare

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// pipe is what splice moves pages through.
type pipe struct {
	r, w int
	size int
}

// newPipe makes one that takes a block, or as much as the system allows.
func newPipe(want int) (*pipe, error) {
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	p := &pipe{r: fd[0], w: fd[1]}
	for want = max(want, 64<<10); want > 64<<10; want /= 2 {
		if _, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, want); err == nil {
			break
		}
	}
	size, err := unix.FcntlInt(uintptr(p.w), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), p.close())
	}
	p.size = size
	return p, nil
}

func (p *pipe) close() error { return errors.Join(unix.Close(p.r), unix.Close(p.w)) }

type spliceSender struct {
	e *env
	p *pipe
}

func newSpliceSender(e *env) (*spliceSender, error) {
	p, err := newPipe(min(e.job.Block, 1<<20))
	return &spliceSender{e, p}, err
}

func (s *spliceSender) send(block uint64) error {
	off, end := s.e.src.offset(block), s.e.src.offset(block)+int64(s.e.job.Block)
	for off < end {
		s.e.m.call()
		n, err := unix.Splice(int(s.e.src.f.Fd()), &off, s.p.w, nil, int(min(end-off, int64(s.p.size))), unix.SPLICE_F_MOVE)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("splice from the file: %w", err)
		}
		for left := int(n); left > 0; {
			flags := unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK
			if off < end {
				flags |= unix.SPLICE_F_MORE
			}
			k, err := s.e.conn.writable("splice", func(fd int) (int, error) {
				n, err := unix.Splice(s.p.r, nil, fd, nil, left, flags)
				return int(n), err
			})
			if err != nil {
				return err
			}
			left -= k
		}
	}
	return nil
}

func (s *spliceSender) close() error { return s.p.close() }

// spliceReader has the places in a file in memory, into which the pages go.
type spliceReader struct {
	e *env
	p *pipe
	f *os.File
	places
}

func newSpliceReader(e *env) (_ *spliceReader, err error) {
	r := &spliceReader{e: e}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.p, err = newPipe(min(e.job.Block, 1<<20)); err != nil {
		return nil, err
	}
	if r.f, _, err = memoryFile("zrdma-compare-places"); err != nil {
		return nil, err
	}
	n := e.job.depth() * e.job.Block
	if err := r.f.Truncate(int64(n)); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(r.f.Fd()), 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping %s of memory: %w", Size(int64(n)), err)
	}
	r.places = places{mem, e.job.Block}
	touch(mem)
	return r, nil
}

func (r *spliceReader) receive(place int) ([]byte, error) {
	off := int64(place) * int64(r.block)
	for end := off + int64(r.block); off < end; {
		n, err := r.e.conn.readable("splice", func(fd int) (int, error) {
			n, err := unix.Splice(fd, nil, r.p.w, nil, int(min(end-off, int64(r.p.size))), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			return int(n), err
		})
		if err != nil {
			return nil, err
		}
		for left := n; left > 0; {
			r.e.m.call()
			k, err := unix.Splice(r.p.r, nil, int(r.f.Fd()), &off, left, unix.SPLICE_F_MOVE)
			if err == unix.EINTR {
				continue
			}
			if err == nil && k == 0 {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return nil, fmt.Errorf("splice into memory: %w", err)
			}
			left -= int(k)
		}
	}
	return r.at(place), nil
}

func (r *spliceReader) close() error {
	errs := []error{r.unmap()}
	if r.f != nil {
		errs = append(errs, r.f.Close())
	}
	if r.p != nil {
		errs = append(errs, r.p.close())
	}
	return errors.Join(errs...)
}
