package compare

import (
	"fmt"
	"time"
)

// Limits of a job.
const (
	MinBlock = 4 << 10
	MaxBlock = 64 << 20
	MaxDepth = 1024
	MaxBytes = 1 << 50
	// maxFlight bounds what is under way, and so the memory of either end.
	maxFlight = 1 << 30
	// maxDistinct bounds the table of checksums.
	maxDistinct = 1 << 20
)

// Where the server has the blocks.
const (
	Memory = "memory" // a file that is in memory only
	File   = "file"   // a file of the server's --dir, in the page cache
)

// Job is what is done in each way.
type Job struct {
	Bytes  int64  `json:"bytes"`  // moved by one run, rounded up to whole blocks
	Block  int    `json:"block"`  // bytes of a block
	Depth  int    `json:"depth"`  // blocks asked for and not there yet
	Data   int64  `json:"data"`   // bytes of the blocks that are not the same; then they come again
	Source string `json:"source"` // Memory or File
}

// Blocks is how many blocks one run moves.
func (j Job) Blocks() int64 { return (j.Bytes + int64(j.Block) - 1) / int64(j.Block) }

// distinct is how many blocks are not the same.
func (j Job) distinct() int { return int(max(1, j.Data/int64(j.Block))) }

// depth is how many blocks are under way in a run.
func (j Job) depth() int { return int(min(int64(j.Depth), j.Blocks())) }

// Check refuses what makes no sense, and says what does.
func (j Job) Check() error {
	switch {
	case j.Block < MinBlock || j.Block > MaxBlock:
		return fmt.Errorf("a block of %d bytes: blocks have %s to %s", j.Block, Size(MinBlock), Size(MaxBlock))
	case j.Block%4096 != 0:
		return fmt.Errorf("a block of %d bytes: blocks are whole pages of 4 KiB", j.Block)
	case j.Bytes < 1 || j.Bytes > MaxBytes:
		return fmt.Errorf("%d bytes to move: a run moves 1 byte to %s", j.Bytes, Size(MaxBytes))
	case j.Depth < 1 || j.Depth > MaxDepth:
		return fmt.Errorf("a depth of %d: 1 to %d blocks are under way", j.Depth, MaxDepth)
	case int64(j.Block)*int64(j.Depth) > maxFlight:
		return fmt.Errorf("%d blocks of %s under way: at most %s; take a smaller block or depth", j.Depth, Size(int64(j.Block)), Size(maxFlight))
	case j.Data < int64(j.Block):
		return fmt.Errorf("data of %d bytes: there must be one block of %s at least", j.Data, Size(int64(j.Block)))
	case j.Data/int64(j.Block) <= int64(j.Depth):
		// Else a block could come into the place where the same one lies already, and
		// its checksum would say nothing.
		return fmt.Errorf("data of %s is %d blocks of %s: there must be more blocks than are under way, %d", Size(j.Data), j.Data/int64(j.Block), Size(int64(j.Block)), j.Depth)
	case j.Data/int64(j.Block) > maxDistinct:
		return fmt.Errorf("data of %s in blocks of %s: at most %d blocks", Size(j.Data), Size(int64(j.Block)), maxDistinct)
	case j.Source != Memory && j.Source != File:
		return fmt.Errorf("the blocks are in %q: choose %q or %q", j.Source, Memory, File)
	}
	return nil
}

// warmUp is a short run of the same kind, which is not counted.
func (j Job) warmUp() Job {
	j.Bytes = min(j.Bytes, max(j.Data, int64(j.Depth*j.Block)), 64<<20)
	return j
}

// Size writes a number of bytes for people.
func Size(n int64) string {
	for _, u := range []struct {
		n    int64
		name string
	}{{1 << 50, "PiB"}, {1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.n {
			if n%u.n == 0 {
				return fmt.Sprintf("%d %s", n/u.n, u.name)
			}
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.n), u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

// silence is how long a run may go without a block before it is given up.
const silence = 30 * time.Second
