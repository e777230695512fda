package mr

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/zrdma/zrdma/verbs"
)

// HugePages says what pages anonymous memory is made of.
type HugePages uint8

// Values of HugePages.
const (
	HugeAuto HugePages = iota // reserved huge pages, else transparent ones, else ordinary ones
	HugeOff                   // ordinary pages
	HugeOnly                  // reserved huge pages, or an error
)

// Node is the NUMA node that memory should come from: a hint.
type Node int

// Values of Node; OnNode gives the others.
const (
	AnyNode    Node = 0
	NearDevice Node = -1 // the node of the first domain's device
)

// OnNode is NUMA node n, counted from 0.
func OnNode(n int) Node { return Node(n + 1) }

// resolve gives the number of the node, or -1 for none.
func (n Node) resolve(domains []*verbs.PD) int {
	switch {
	case n > 0:
		return int(n) - 1
	case n == NearDevice && len(domains) > 0:
		b, err := os.ReadFile(filepath.Join(domains[0].Context().SysfsPath(), "device/numa_node"))
		if err == nil {
			if v, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				return v
			}
		}
	}
	return -1
}

// Backing is what kind of memory a region is.
type Backing uint8

// Values of Backing.
const (
	OrdinaryPages   Backing = iota
	ReservedHuge            // MAP_HUGETLB
	TransparentHuge         // asked for with madvise; the kernel may not have given them all
	GoMemory                // the Go heap, in builds with the race detector and where there is no mmap
	CallerMemory            // what the caller of Register owns
	FilePages               // the page cache, or storage that is addressable (DAX)
	Dmabuf                  // memory of another device
)

var backings = [...]string{"ordinary pages", "reserved huge pages", "transparent huge pages", "Go memory", "caller's memory", "file pages", "dma-buf"}

// String names it.
func (b Backing) String() string {
	if int(b) < len(backings) {
		return backings[b]
	}
	return fmt.Sprintf("Backing(%d)", uint8(b))
}

// mapping is anonymous memory.
type mapping struct {
	mem     []byte
	backing Backing
	unmap   func() error
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }
