package compare

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// source is the server's blocks: a file, mapped. For Memory it is a file that is
// in memory only, so that every way can take it.
type source struct {
	job  Job
	f    *os.File
	mem  []byte // the file, mapped for reading and writing: see mr.MapFile
	sums []byte // CRC-32C of each block, little-endian
	what string

	touched byte
}

func openSource(j Job, dir string) (s *source, err error) {
	s = &source{job: j}
	defer func() {
		if err != nil {
			s.close()
			s = nil
		}
	}()
	if j.Source == Memory {
		s.f, s.what, err = memoryFile("zrdma-compare")
	} else {
		s.what = "a file in " + dir
		if s.f, err = os.CreateTemp(dir, "zrdma-compare-*"); err == nil {
			err = os.Remove(s.f.Name()) // it goes with the process, however that ends
		}
	}
	if err != nil {
		return s, fmt.Errorf("making the blocks: %w", err)
	}
	// Written, not stored through a mapping: a full disk is an error then.
	b, n := make([]byte, j.Block), j.distinct()
	for i := range n {
		content(b, i)
		if _, err := s.f.WriteAt(b, int64(i)*int64(j.Block)); err != nil {
			hint := ""
			if errors.Is(err, unix.ENOSPC) {
				hint = "; choose another --dir for the server, or less --data"
			}
			return s, fmt.Errorf("writing %s of blocks to %s: %w%s", Size(int64(n)*int64(j.Block)), s.what, err, hint)
		}
		s.sums = binary.LittleEndian.AppendUint32(s.sums, sum(b))
	}
	s.mem, err = unix.Mmap(int(s.f.Fd()), 0, n*j.Block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return s, fmt.Errorf("mapping the blocks: %w", err)
	}
	// Every page is there before anything is measured.
	for i := 0; i < len(s.mem); i += 4096 {
		s.touched += s.mem[i] // kept, or the compiler leaves the read out
	}
	return s, nil
}

// matches says whether the source does for a job.
func (s *source) matches(j Job) bool {
	return s != nil && s.job.Source == j.Source && s.job.Block == j.Block && s.job.distinct() == j.distinct()
}

// block is the i-th block of a job, where it lies.
func (s *source) block(i uint64) []byte {
	off := s.offset(i)
	return s.mem[off : off+int64(s.job.Block)]
}

// offset is where the i-th block of a job begins.
func (s *source) offset(i uint64) int64 {
	return int64(i%uint64(s.job.distinct())) * int64(s.job.Block)
}

func (s *source) close() {
	if s == nil {
		return
	}
	if s.mem != nil {
		_ = unix.Munmap(s.mem)
	}
	if s.f != nil {
		_ = s.f.Close()
	}
}
