//go:build unix

package cli

import (
	"os/exec"
	"syscall"
)

// detach puts a process into a group of its own, so that the terminal's signals
// do not reach it.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
