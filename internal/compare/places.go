package compare

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// newPlaces maps memory for the blocks under way, every page of it there.
func newPlaces(j Job) (places, error) {
	mem, err := anonymous(j.depth() * j.Block)
	return places{mem, j.Block}, err
}

func anonymous(n int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("mapping %s of memory: %w", Size(int64(n)), err)
	}
	touch(mem)
	return mem, nil
}

func touch(mem []byte) {
	for i := 0; i < len(mem); i += 4096 {
		mem[i] = 0
	}
}

func (p *places) unmap() error {
	if p.mem == nil {
		return nil
	}
	mem := p.mem
	p.mem = nil
	return unix.Munmap(mem)
}
