package compare

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/roce"
	"github.com/zrdma/zrdma/verbs"
)

// SoftDevice names the software device at an address that is free: one of its own
// on loopback, else that of the TCP connection.
const SoftDevice = "soft"

var softSeq atomic.Uint32

// openDevice opens the RDMA device of that name, of DeviceName. local is this end
// of the TCP connection.
func openDevice(name string, local netip.Addr) (*verbs.Context, error) {
	if name != SoftDevice {
		return verbs.Open(name)
	}
	if !local.IsLoopback() {
		return verbs.OpenSoft(verbs.SoftConfig{Addrs: []netip.Addr{local}})
	}
	if local.Is6() {
		return nil, errors.New("the software device needs an address of its own at each end, and ::1 is the only one of IPv6's loopback: use 127.0.0.1")
	}
	for range 8 { // two processes must not have the same
		pid, n := os.Getpid(), softSeq.Add(1)
		a := netip.AddrFrom4([4]byte{127, byte(64 + (n+uint32(pid>>16)*8)%128), byte(pid >> 8), byte(pid)})
		c, err := verbs.OpenSoft(verbs.SoftConfig{Addrs: []netip.Addr{a}})
		if !errors.Is(err, syscall.EADDRINUSE) {
			return c, err
		}
	}
	return nil, fmt.Errorf("no free loopback address for the software device: %w", syscall.EADDRINUSE)
}

// DeviceName says which device is used for a name: "" is what $ZRDMA_DEVICE names,
// else the first kernel device with an active port, else SoftDevice.
func DeviceName(name string) string {
	if name == "" {
		name = os.Getenv(verbs.EnvDevice)
	}
	if name != "" {
		return name
	}
	c := kernelDevice()
	if c == nil {
		return SoftDevice
	}
	defer c.Close()
	return c.Name()
}

// kernelDevice opens the first kernel device with an active port; nil: none.
func kernelDevice() *verbs.Context {
	l, err := verbs.KernelDevices()
	if err != nil {
		return nil
	}
	for _, d := range l {
		c, err := d.Open()
		if err != nil {
			continue
		}
		if _, err := c.ActivePort(); err == nil {
			return c
		}
		c.Close()
	}
	return nil
}

const softNote = "the software device is a stand-in for a network card: the processor copies each byte into packets and out of them again"

// watch has the meter count what a device does: of the software device its calls
// and copies. What others do nobody counts.
func (m *meter) watch(c *verbs.Context) {
	in, ok := bridge.Inner(c).(interface{ Counters() roce.Counters })
	if !ok {
		m.unknown.Store(true)
		if strings.HasPrefix(c.Name(), "rxe") {
			m.note("rxe is a stand-in for a network card: the kernel copies each byte into packets and out of them again, partly in threads of its own, whose time counts for the machine only")
		}
		return
	}
	m.note(softNote)
	m.device = func() (calls, copied int64) {
		l := in.Counters().Link
		return int64(l.TxCalls + l.RxCalls), int64(l.TxBytes + l.RxBytes)
	}
}
