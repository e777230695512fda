// Package devkind tells kinds of RDMA device apart, for what no query says.
package devkind

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/zrdma/zrdma/verbs"
)

// IsHardware tells a device on a bus from rxe, siw and the software device.
func IsHardware(c *verbs.Context) bool {
	p := c.SysfsPath()
	if p == "" || IsRXE(c) {
		return false
	}
	real, err := filepath.EvalSymlinks(p)
	return err == nil && !strings.Contains(real, "/devices/virtual/")
}

// IsRXE tells the kernel's rxe: only it names its network card so.
func IsRXE(c *verbs.Context) bool {
	p := c.SysfsPath()
	if p == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(p, "parent"))
	return err == nil
}

// RepeatsLocal tells devices that execute binds and invalidations again when they
// send again what stands before them: rxe of 6.1 and 6.12 at least, by test (docs/rxe.md)
// and by reading drivers/infiniband/sw/rxe/rxe_req.c of 6.1: req_retry goes back to the
// oldest request that has not completed; rxe_do_local_ops does not look whether one
// is done.
// ZRDMA_NO_WORKAROUNDS=1 denies it, for tests that show the need.
func RepeatsLocal(c *verbs.Context) bool {
	return IsRXE(c) && os.Getenv("ZRDMA_NO_WORKAROUNDS") != "1"
}
