package dpu

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/Mellanox/rdmamap"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const dlCmdInfo = 51

// kernelDevlink asks the kernel. A kernel without devlink has no devices.
func kernelDevlink(ctx context.Context) ([]DevlinkDevice, error) {
	fam, err := netlink.GenlFamilyGet(nl.GENL_DEVLINK_NAME)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, netlink.ErrNotImplemented) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("dpu: devlink: %w", err)
	}
	list, err := netlink.DevLinkGetDeviceList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("dpu: devlink devices: %w", err)
	}
	var out []DevlinkDevice
	at := map[string]int{}
	for _, d := range list {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		dev := DevlinkDevice{Bus: d.BusName, Device: d.DeviceName, Eswitch: eswitch(d.Attrs.Eswitch.Mode)}
		// A driver without info has none.
		if m, err := genl(fam.ID, dlCmdInfo, 0, d.BusName, d.DeviceName); err == nil && len(m) > 0 && len(m[0]) > nl.SizeofGenlmsg {
			dev.Info, _ = parseInfo(m[0][nl.SizeofGenlmsg:])
		}
		at[d.BusName+"/"+d.DeviceName] = len(out)
		out = append(out, dev)
	}
	// Not the library's list of ports: it drops the controller and the function.
	msgs, err := genl(fam.ID, nl.DEVLINK_CMD_PORT_GET, unix.NLM_F_DUMP, "", "")
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return out, fmt.Errorf("dpu: devlink ports: %w", err)
	}
	for _, m := range msgs {
		if len(m) <= nl.SizeofGenlmsg {
			continue
		}
		p, perr := parsePort(m[nl.SizeofGenlmsg:])
		if perr != nil {
			err = errors.Join(err, perr)
			continue
		}
		if i, ok := at[p.Bus+"/"+p.Device]; ok {
			out[i].Ports = append(out[i].Ports, p)
		}
	}
	return out, err
}

func genl(family uint16, cmd uint8, flags int, bus, device string) ([][]byte, error) {
	req := nl.NewNetlinkRequest(int(family), flags|unix.NLM_F_ACK)
	req.AddData(&nl.Genlmsg{Command: cmd, Version: nl.GENL_DEVLINK_VERSION})
	if bus != "" {
		req.AddData(nl.NewRtAttr(dlBus, nl.ZeroTerminated(bus)))
		req.AddData(nl.NewRtAttr(dlDevice, nl.ZeroTerminated(device)))
	}
	return req.Execute(unix.NETLINK_GENERIC, 0)
}

// eswitch drops what the library says where a device has no switch.
func eswitch(mode string) string {
	if mode == "legacy" || mode == "switchdev" {
		return mode
	}
	return ""
}

// kernelRDMALinks asks RDMA netlink. A kernel without the RDMA core has no links.
func kernelRDMALinks(context.Context) ([]RDMALink, error) {
	list, err := netlink.RdmaLinkList()
	if errors.Is(err, syscall.EPROTONOSUPPORT) || errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("dpu: RDMA netlink: %w", err)
	}
	out := make([]RDMALink, 0, len(list))
	for _, l := range list {
		out = append(out, RDMALink{
			Name: l.Attrs.Name, Firmware: l.Attrs.FirmwareVersion,
			NodeGUID: reversedGUID(l.Attrs.NodeGuid), SysImageGUID: reversedGUID(l.Attrs.SysImageGuid),
		})
	}
	return out, nil
}

// rdmamapOf names the RDMA devices of a PCI or auxiliary device.
func rdmamapOf(device string) []string {
	if strings.Contains(device, ".sf.") {
		return rdmamap.GetRdmaDevicesForAuxdev(device)
	}
	return rdmamap.GetRdmaDevicesForPcidev(device)
}
