//go:build !linux

package softroce

import (
	"errors"
	"fmt"
	"net"
	"time"
)

type vm struct {
	agent   net.Conn
	monitor monitor
	cards   []net.Conn
	console *console
	exited  chan struct{}
	err     error
}

func startVM(string, []string, [][]byte, int) (*vm, error) {
	return nil, fmt.Errorf("start qemu: VMs are run on Linux only: %w", errors.ErrUnsupported)
}

func (*vm) kill() {}

func (*vm) cpuTime() (time.Duration, error) { return 0, errors.ErrUnsupported }
