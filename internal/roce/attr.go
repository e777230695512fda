package roce

import (
	"math"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/provider"
)

// fwVersion is what the device calls its version.
const fwVersion = "zrdma-soft 1"

// epoch is where the device's clock starts. It counts nanoseconds.
var epoch = time.Now()

func stampNow() stamp {
	t := time.Now()
	return stamp{raw: uint64(t.Sub(epoch)), wall: uint64(t.UnixNano())}
}

// guid is the node GUID, the same for an address each time.
func (n *node) guid() provider.GUID {
	if len(n.links) == 0 {
		return guidOf(netip.IPv6Unspecified())
	}
	return guidOf(n.links[0].Addr())
}

// deviceAttr gives the limits of the device.
func (n *node) deviceAttr() provider.DeviceAttr {
	a := provider.DeviceAttr{
		NodeGUID: n.guid(), SysImageGUID: n.guid(),
		MaxMRSize: math.MaxInt64, PageSizeCap: 0xfffff000,
		MaxQP: maxQP, MaxQPWR: maxQPWR, MaxSGE: maxSGE, MaxSGERd: maxSGE,
		MaxCQ: 1 << 20, MaxCQE: maxCQE, MaxMR: idxMask, MaxPD: math.MaxInt32, MaxMW: idxMask,
		MaxQPRdAtom: maxRdAtomic, MaxResRdAtom: maxRdAtomic * maxQP, MaxQPInitRdAtom: maxRdAtomic,
		AtomicCap:   provider.AtomicGlob,
		MaxMcastGrp: maxMcastGrp, MaxMcastQPAttach: maxMcastQP, MaxTotalMcastQPAttach: maxMcastGrp * maxMcastQP,
		MaxAH: maxAH, MaxSRQ: maxSRQ, MaxSRQWR: maxSRQWR, MaxSRQSGE: maxSRQSGE,
		MaxPKeys: 1, LocalCAAckDelay: 15, PhysPortCnt: 1,
		DeviceCapFlags: provider.DeviceBadPKeyCntr | provider.DeviceBadQKeyCntr | provider.DeviceSRQResize |
			provider.DeviceRCRNRNakGen | provider.DeviceSysImageGuid | provider.DeviceMemWindow |
			provider.DeviceMemWindowType2B,
	}
	a.SetFWVer(fwVersion)
	return a
}

// QueryDevice gives the limits of the device.
//
// Verb: ibv_query_device(3).
func (c *devCtx) QueryDevice(a *provider.DeviceAttr) error {
	*a = c.n.deviceAttr()
	return nil
}

// QueryDeviceEx gives the limits and what else the device can do: only
// timestamps, in nanoseconds.
//
// Verb: ibv_query_device_ex(3).
func (c *devCtx) QueryDeviceEx(a *provider.DeviceAttrEx) error {
	*a = provider.DeviceAttrEx{
		Orig:                    c.n.deviceAttr(),
		CompletionTimestampMask: math.MaxUint64,
		HCACoreClock:            1_000_000,
		PhysPortCntEx:           1,
	}
	return nil
}

// QueryRTValues reads the device's clock: seconds and nanoseconds.
//
// Verb: ibv_query_rt_values_ex(3).
func (c *devCtx) QueryRTValues() (sec, nsec uint64, err error) {
	t := stampNow().raw
	return t / 1e9, t % 1e9, nil
}

// mtuCode is the encoding of a path MTU in bytes.
func mtuCode(bytes int) provider.MTU {
	m := provider.MTU256
	for m < provider.MTU4096 && 256<<m <= bytes {
		m++
	}
	return m
}

// mtu is the largest path MTU that every link carries.
func (n *node) mtu() provider.MTU {
	m := provider.MTU4096
	for _, l := range n.links {
		m = min(m, mtuCode(l.MTU()))
	}
	return m
}

// QueryPort describes port 1, the only one.
//
// Verb: ibv_query_port(3).
func (c *devCtx) QueryPort(port uint8, a *provider.PortAttr) error {
	if port != devicePort {
		return syscall.EINVAL
	}
	n := c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	*a = provider.PortAttr{
		State: provider.PortActive, PhysState: 5, // link up
		MaxMTU: provider.MTU4096, ActiveMTU: n.mtu(),
		GIDTblLen:    int32(len(n.links)),
		PortCapFlags: provider.PortCMSup | provider.PortIPBasedGids,
		MaxMsgSz:     maxMsg,
		BadPKeyCntr:  uint32(n.stat.BadPKey), QKeyViolCntr: uint32(n.stat.BadQKey),
		PKeyTblLen: 1, MaxVLNum: 1,
		ActiveWidth: 1, ActiveSpeed: 1, // a lane of 2.5 Gbit/s: nobody knows
		LinkLayer: provider.LinkLayerEthernet,
	}
	return nil
}

// gid is entry index of the table.
func (n *node) gid(port, index uint64) (provider.GID, error) {
	if port != devicePort || index >= uint64(len(n.links)) {
		return provider.GID{}, syscall.EINVAL
	}
	return provider.GIDFromAddr(n.links[index].Addr()), nil
}

// gidEntry is gid with what is known about it.
func (n *node) gidEntry(index int) provider.GIDEntry {
	a := n.links[index].Addr()
	return provider.GIDEntry{GID: provider.GIDFromAddr(a), Index: uint32(index), Port: devicePort,
		Type: provider.GIDTypeRoCEV2, Ifindex: n.ifindex(a)}
}

// ifindex is the network interface that has an address, 0 for none. The kernel is
// asked once for each address: a link keeps its socket when addresses move.
func (n *node) ifindex(a netip.Addr) uint32 {
	if n.net == nil || n.net.Virtual() {
		return 0
	}
	if v, ok := n.ifindexes.Load(a); ok {
		return v.(uint32)
	}
	v := interfaceOf(a)
	n.ifindexes.Store(a, v)
	return v
}

func interfaceOf(a netip.Addr) uint32 {
	all, err := net.Interfaces()
	if err != nil {
		return 0
	}
	for i := range all {
		addrs, err := all[i].Addrs()
		if err != nil {
			continue
		}
		for _, x := range addrs {
			if p, ok := x.(*net.IPNet); ok {
				if b, ok := netip.AddrFromSlice(p.IP); ok && b.Unmap() == a.WithZone("") || ok && p.IP.IsLoopback() && a.IsLoopback() && p.Contains(a.AsSlice()) {
					return uint32(all[i].Index)
				}
			}
		}
	}
	return 0
}

// QueryGID reads an entry of the GID table, which has one for each address.
//
// Verb: ibv_query_gid(3).
func (c *devCtx) QueryGID(port uint8, index int) (provider.GID, error) {
	return c.n.gid(uint64(port), uint64(index))
}

// QueryGIDEx reads an entry of the GID table with its type and interface.
//
// Verb: ibv_query_gid_ex(3).
func (c *devCtx) QueryGIDEx(port, index, flags uint32) (provider.GIDEntry, error) {
	if flags != 0 {
		return provider.GIDEntry{}, syscall.EINVAL
	}
	if _, err := c.n.gid(uint64(port), uint64(index)); err != nil {
		return provider.GIDEntry{}, err
	}
	return c.n.gidEntry(int(index)), nil
}

// QueryGIDTable reads the table: EINVAL when it has more than limit entries.
//
// Verb: ibv_query_gid_table(3).
func (c *devCtx) QueryGIDTable(limit int, flags uint32) ([]provider.GIDEntry, error) {
	if flags != 0 || limit < len(c.n.links) {
		return nil, syscall.EINVAL
	}
	t := make([]provider.GIDEntry, len(c.n.links))
	for i := range t {
		t[i] = c.n.gidEntry(i)
	}
	return t, nil
}

// QueryPKey reads the table of partition keys, which has one.
//
// Verb: ibv_query_pkey(3).
func (c *devCtx) QueryPKey(port uint8, index int) (uint16, error) {
	if port != devicePort || index != 0 {
		return 0, syscall.EINVAL
	}
	return defaultPKey, nil
}

// PKeyIndex finds a partition key.
//
// Verb: ibv_get_pkey_index(3).
func (c *devCtx) PKeyIndex(port uint8, pkey uint16) (int, error) {
	if port != devicePort || pkey != defaultPKey {
		return -1, syscall.EINVAL
	}
	return 0, nil
}
