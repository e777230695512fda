package iouring

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// ZeroCopyReceive says why data does not arrive over an interface without a
// copy. It needs Linux 6.15 and a network card that splits headers from data and
// lets a receive queue have memory of the program's.
func ZeroCopyReceive(iface string) error {
	if major, minor := kernel(); major < 6 || major == 6 && minor < 15 {
		return fmt.Errorf("zero-copy receive needs Linux 6.15, this is %d.%d: %w", major, minor, errors.ErrUnsupported)
	}
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return err
	}
	if i.Flags&net.FlagLoopback != 0 {
		return fmt.Errorf("zero-copy receive needs a network card; %s has none, it is loopback: %w", iface, errors.ErrUnsupported)
	}
	if _, err := os.Stat(filepath.Join("/sys/class/net", iface, "device")); err != nil {
		return fmt.Errorf("zero-copy receive needs a network card; %s is virtual: %w", iface, errors.ErrUnsupported)
	}
	return fmt.Errorf("zero-copy receive: this kernel has it, where a network card splits headers from data; this program does not use it, for it was never tried on such a card: %w", errors.ErrUnsupported)
}
