package guest

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/zrdma/zrdma/test/softroce/internal/agent"
	"golang.org/x/sys/unix"
)

// wrapLimits puts a second life of this binary in front of a command that is to
// have a limit on locked memory: a limit is a matter of the process itself.
func wrapLimits(req *agent.Request) {
	if req.Memlock < 0 || len(req.Argv) == 0 {
		return
	}
	path, err := agent.LookPath(*req)
	if err != nil {
		return // the start will say so
	}
	req.Argv = append([]string{"/proc/self/exe", "limits", strconv.FormatInt(req.Memlock, 10), path}, req.Argv...)
}

// execWithLimits takes: bytes, path, argv...
func execWithLimits(args []string) error {
	if len(args) < 3 {
		return errors.New("too few arguments")
	}
	n, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: n, Max: n}); err != nil {
		return fmt.Errorf("memlock: %w", err)
	}
	return unix.Exec(args[1], args[2:], os.Environ())
}
