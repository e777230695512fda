//go:build invariants

package mr

const scrubs = true

// poison is what released memory is filled with.
const poison = 0xCC

// scrub fills memory that nobody holds, so that who still reads it sees it.
func scrub(s *slot) {
	for i := range s.mem {
		s.mem[i] = poison
	}
}

// touched finds a write into memory that nobody held; -1 for none.
func touched(s *slot) int {
	for i, c := range s.mem {
		if c != poison {
			return i
		}
	}
	return -1
}
