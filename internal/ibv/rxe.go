//go:build linux && cgo

package ibv

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	p "github.com/zrdma/zrdma/internal/provider"
)

// Faults of the rxe provider inside libibverbs, by rdma-core version (source:
// rdma-core git; each is named where it is worked around). The version is that
// of the library file; an unknown one counts as faulty, for the work-arounds
// are correct on a good library too, only slower.

var rdmaCore = sync.OnceValue(func() [2]int {
	for _, dir := range []string{"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/lib64", "/lib"} {
		t, err := os.Readlink(filepath.Join(dir, "libibverbs.so.1"))
		if err != nil {
			continue
		}
		// libibverbs.so.1.14.44.0
		f := strings.Split(strings.TrimPrefix(filepath.Base(t), "libibverbs.so."), ".")
		if len(f) == 4 {
			major, e1 := strconv.Atoi(f[2])
			minor, e2 := strconv.Atoi(f[3])
			if e1 == nil && e2 == nil {
				return [2]int{major, minor}
			}
		}
	}
	return [2]int{}
})

// Work-arounds can be turned off by tests, to show that they are needed.
var noWorkarounds = os.Getenv("ZRDMA_NO_WORKAROUNDS") == "1"

// rxeNextPollFault: ibv_next_poll that finds nothing advances the consumer past
// the producer (fixed in 55.0) and ibv_end_poll unlocks twice (fixed in 59.0).
func rxeNextPollFault() bool { return !noWorkarounds && rdmaCore()[0] < 59 }

// rxeListFault: ibv_wr_set_sge_list counts the first length n times, and
// ibv_wr_set_inline_data_list sends nothing (both fixed in 64.0).
func rxeListFault() bool { return !noWorkarounds && rdmaCore()[0] < 64 }

// uneven reports a gather list whose elements differ in length.
func uneven(wr []p.WR, sge []p.SGE) bool {
	for i := range wr {
		if wr[i].NumSGE < 2 || wr[i].Flags&p.SendInline != 0 {
			continue
		}
		l := sge[wr[i].SGEOff : wr[i].SGEOff+wr[i].NumSGE]
		for _, s := range l[1:] {
			if s.Length != l[0].Length {
				return true
			}
		}
	}
	return false
}
