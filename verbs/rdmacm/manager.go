package rdmacm

import (
	"errors"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/ibv"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/verbs"
)

// manager is the connection manager where none was chosen: that of the software
// device in ZRDMA_DEVICE, the kernel's when another device is named there, and
// without it the kernel's where it can be used.
func manager(verb string) (provider.CM, error) {
	if name, soft := softByDefault(); soft {
		if name == "" {
			sayOnce()
		}
		m, err := bridge.SoftCM(name)
		return m, cmErr(verb, err)
	}
	m, err := ibv.CM()
	return m, cmErr(verb, err)
}

// softByDefault names the software device to use where none was chosen, "" for
// the default one.
func softByDefault() (name string, soft bool) {
	if name = os.Getenv(verbs.EnvDevice); name != "" {
		return name, bridge.IsSoft(name)
	}
	return "", noKernel() != ""
}

// managerOf is the connection manager that serves a device; nil is none chosen.
func managerOf(verb string, dev *verbs.Context) (provider.CM, error) {
	if dev == nil {
		return manager(verb)
	}
	if s, ok := bridge.Inner(dev).(provider.CMSource); ok {
		return s.CM(), nil
	}
	m, err := ibv.CM()
	return m, cmErr(verb, err)
}

// noKernel says why the kernel's connection manager cannot be used, "" when it
// can. It is found out once: a program stays with what it began with.
var noKernel = sync.OnceValue(kernelFault)

var sayOnce = sync.OnceFunc(func() {
	slog.Info("rdmacm: using the software device", "device", "soft:127.0.0.1", "why", noKernel())
})

func kernelFault() string {
	m, err := ibv.CM()
	if err != nil {
		return err.Error()
	}
	l, err := verbs.KernelDevices()
	if err != nil {
		return err.Error()
	}
	if len(l) == 0 {
		return "this machine has no kernel device"
	}
	ch, err := m.CreateChannel()
	if noModule(err) {
		return hintModule
	}
	if err == nil {
		ch.Close()
	}
	return ""
}

func noModule(err error) bool {
	return errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENOENT)
}
