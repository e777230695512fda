package verbs

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// What a user gets wrong has an error of its own, which says what to do.

func TestSelectGIDErrors(t *testing.T) {
	entry := func(i, port uint32, ip string, typ GIDType) GIDEntry {
		return GIDEntry{GID: GIDFromAddr(netip.MustParseAddr(ip)), Index: i, Port: port, Type: typ}
	}
	table := []GIDEntry{
		entry(0, 1, "fe80::5054:ff:fe77:1", GIDTypeRoCEV2),
		entry(1, 1, "fd77::1", GIDTypeRoCEV2),
		entry(2, 1, "10.77.0.1", GIDTypeRoCEV1),
		entry(3, 1, "10.77.0.1", GIDTypeRoCEV2),
		entry(0, 2, "10.88.0.1", GIDTypeRoCEV2),
	}
	for ip, want := range map[string]uint32{
		"10.77.0.1": 3, "::ffff:10.77.0.1": 3, "fd77::1": 1, "fe80::5054:ff:fe77:1": 0, "fe80::5054:ff:fe77:1%eth0": 0,
	} {
		e, err := selectGID("mlx5_0", table, 1, netip.MustParseAddr(ip))
		require.NoError(t, err, ip)
		require.Equal(t, want, e.Index, ip)
	}
	for n, want := range map[int]uint32{5: 3, 3: 2, 2: 1, 1: 0} {
		e, err := selectGID("mlx5_0", table[:n], 1, netip.Addr{})
		require.NoError(t, err)
		require.Equal(t, want, e.Index, "the default of the first %d entries", n)
	}

	_, err := selectGID("mlx5_0", table, 1, netip.MustParseAddr("10.88.0.1"))
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
	require.EqualError(t, err, "verbs: mlx5_0 port 1 has no GID for 10.88.0.1: it has 0: fe80::5054:ff:fe77:1 (GID_TYPE_ROCE_V2), "+
		"1: fd77::1 (GID_TYPE_ROCE_V2), 2: 10.77.0.1 (GID_TYPE_ROCE_V1), 3: 10.77.0.1 (GID_TYPE_ROCE_V2): cannot assign requested address")
	_, err = selectGID("mlx5_0", table, 3, netip.Addr{})
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
	require.ErrorContains(t, err, "port 3 has no usable GID: it has none; give its netdev an address")
	_, err = selectGID("mlx5_0", []GIDEntry{{Port: 1}}, 1, netip.Addr{})
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL, "an empty slot is no GID")
}

func TestOpenErrors(t *testing.T) {
	probe := func(e error) func(string) error {
		return func(node string) error { return &fs.PathError{Op: "open", Path: node, Err: e} }
	}
	for _, c := range []struct {
		err, probe, is error
		hint           string
	}{
		{syscall.ENOENT, syscall.EACCES, syscall.EACCES, "no access to /dev/infiniband/uverbs7: become root"},
		{syscall.ENOENT, syscall.EPERM, syscall.EACCES, "no access to"},
		{syscall.EACCES, syscall.EACCES, syscall.EACCES, "udev rule"},
		{syscall.ENOENT, syscall.ENOENT, syscall.ENOENT, "there is no /dev/infiniband/uverbs7"},
		{syscall.ENODEV, syscall.EACCES, syscall.ENODEV, ""},
	} {
		err := openErr(c.err, "/dev/infiniband/uverbs7", probe(c.probe))
		require.ErrorIs(t, err, c.is)
		require.ErrorContains(t, err, "ibv_open_device")
		require.ErrorContains(t, err, c.hint)
		if c.hint == "" {
			require.NotContains(t, err.Error(), "/dev/infiniband")
		}
	}
}

func TestErrors(t *testing.T) {
	require.NoError(t, verbErr("ibv_reg_mr", nil))
	err := verbErr("ibv_reg_mr", syscall.EINVAL)
	require.EqualError(t, err, "verbs: ibv_reg_mr: invalid argument")
	require.ErrorIs(t, err, syscall.EINVAL)
	require.NotErrorIs(t, err, errors.ErrUnsupported)

	for _, e := range []syscall.Errno{syscall.EOPNOTSUPP, syscall.ENOSYS, provider.ENOTSUPP} {
		require.ErrorIs(t, verbErr("ibv_alloc_dm", e), errors.ErrUnsupported, "errno %d", e)
	}
	require.ErrorContains(t, verbErr("rdma_join_multicast", provider.ENOTSUPP), "524")

	for verb, full := range map[string]bool{"ibv_post_send": true, "ibv_post_recv": true, "ibv_post_srq_recv": true, "ibv_reg_mr": false, "ibv_create_cq": false} {
		require.Equal(t, full, errors.Is(verbErr(verb, syscall.ENOMEM), ErrQueueFull), verb)
	}
	require.ErrorIs(t, verbErr("ibv_wr_complete", syscall.ENOSPC), ErrQueueFull)

	// The life cycle and contexts keep their own errors.
	for _, e := range []error{ErrClosed, ErrInUse, context.Canceled, context.DeadlineExceeded} {
		require.Equal(t, e, verbErr("ibv_dealloc_pd", e))
	}
	require.ErrorIs(t, ErrClosed, net.ErrClosed)
	require.ErrorIs(t, verbClosed("ibv_poll_cq"), ErrClosed)
	require.ErrorIs(t, verbClosed("ibv_poll_cq"), net.ErrClosed)
	require.ErrorContains(t, verbClosed("ibv_poll_cq"), "ibv_poll_cq")
}

func TestRegHint(t *testing.T) {
	err := regHint("ibv_reg_mr", syscall.ENOMEM, 12345)
	require.ErrorIs(t, err, syscall.ENOMEM)
	require.ErrorContains(t, err, "registering 12345 bytes")
	require.EqualError(t, regHint("ibv_reg_mr", syscall.EFAULT, 12345), "verbs: ibv_reg_mr: bad address")
}

func TestCompletionError(t *testing.T) {
	require.NoError(t, WCErr(&WC{}))
	err := WCErr(&WC{Status: WCRetryExcErr, WRID: 0x10, QPN: 0x11, VendorErr: 0x12})
	var ce *CompletionError
	require.ErrorAs(t, err, &ce)
	require.Equal(t, CompletionError{Status: WCRetryExcErr, WRID: 0x10, QPN: 0x11, VendorErr: 0x12}, *ce)
	require.ErrorContains(t, err, "0x10")
	require.ErrorContains(t, err, "WC_RETRY_EXC_ERR")
}

// portCtx is a device whose port is down.
type portCtx struct {
	provider.Context
	ports []PortState
}

func (p *portCtx) Info() provider.DeviceInfo { return provider.DeviceInfo{Name: "mlx5_0"} }
func (p *portCtx) QueryDevice(a *DeviceAttr) error {
	a.PhysPortCnt = uint8(len(p.ports))
	return nil
}
func (p *portCtx) QueryPort(port uint8, a *PortAttr) error { a.State = p.ports[port-1]; return nil }

func TestPortDown(t *testing.T) {
	c := newContext(&portCtx{ports: []PortState{PortDown, PortInit}})
	require.NoError(t, c.h.Init("verbs.Context"))
	defer c.h.Close(func() error { return nil })
	_, err := c.ActivePort()
	require.ErrorIs(t, err, syscall.ENETDOWN)
	require.ErrorContains(t, err, "mlx5_0 has no active port: port 1 is PORT_DOWN, port 2 is PORT_INIT; bring its netdev up")
	c.p = &portCtx{ports: []PortState{PortDown, PortActive}}
	port, err := c.ActivePort()
	require.NoError(t, err)
	require.EqualValues(t, 2, port)
}

func TestNoSuchDevice(t *testing.T) {
	_, err := pickDevice(nil, "mlx5_0")
	require.ErrorIs(t, err, syscall.ENODEV)
	require.EqualError(t, err, `verbs: no RDMA device "mlx5_0": this machine has soft:127.0.0.1: no such device`)
	l := []*Device{{fakeDevice("rxe0")}, {fakeDevice("rxe1")}}
	_, err = pickDevice(l, "mlx5_0")
	require.EqualError(t, err, `verbs: no RDMA device "mlx5_0": this machine has rxe0, rxe1, soft:127.0.0.1: no such device`)
	d, err := pickDevice(l, "rxe1")
	require.NoError(t, err)
	require.Same(t, l[1], d)
}

type fakeDevice string

func (d fakeDevice) Info() provider.DeviceInfo { return provider.DeviceInfo{Name: string(d)} }
func (d fakeDevice) Open() (provider.Context, error) {
	return nil, handle.ErrClosed
}

func TestRegChecksBeforeTheDevice(t *testing.T) {
	d := &PD{} // no device behind it: a call into it would crash
	for _, a := range []AccessFlags{AccessRemoteWrite, AccessRemoteAtomic, AccessRemoteWrite | AccessRemoteRead} {
		_, err := d.RegMR(make([]byte, 1), a)
		require.ErrorIs(t, err, syscall.EINVAL)
		require.ErrorContains(t, err, "AccessLocalWrite")
	}
	_, err := d.RegMR(nil, AccessLocalWrite)
	require.ErrorIs(t, err, syscall.EINVAL)
	require.ErrorContains(t, err, "empty")
}

func TestSGEBounds(t *testing.T) {
	m := &MR{p: deadMR{}, length: 1 << 33, iova: 0x1000}
	require.Equal(t, SGE{Addr: 0x1000 + 1<<32, Length: 1<<32 - 1}, m.SGE(1<<32, 1<<32-1))
	for _, r := range [][2]int{{0, 1 << 32}, {-1, 1}, {0, -1}, {1 << 33, 1}, {1<<63 - 1, 1<<63 - 1}} {
		require.Panics(t, func() { m.SGE(r[0], r[1]) }, "%v", r)
	}
}

func TestIncRKey(t *testing.T) {
	for k, want := range map[RKey]RKey{0: 1, 0xff: 0, 0x1234: 0x1235, 0x12ff: 0x1200, 0xffffffff: 0xffffff00} {
		require.Equal(t, want, IncRKey(k))
	}
}
