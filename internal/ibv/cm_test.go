//go:build linux && cgo

package ibv

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	p "github.com/zrdma/zrdma/internal/provider"
)

func TestAddrRoundTrip(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.2.3:4791":           "10.1.2.3:4791",
		"0.0.0.0:0":               "0.0.0.0:0",
		"[::ffff:10.1.2.3]:65535": "10.1.2.3:65535", // the kernel compares IPv4 with IPv4
		"[::]:1":                  "[::]:1",
		"[fd77::1]:258":           "[fd77::1]:258",
		"[fe80::1%lo]:7":          "[fe80::1%lo]:7",
		"[fe80::1%1]:7":           "[fe80::1%lo]:7", // index 1 is lo
		"[fe80::1%999999]:7":      "[fe80::1%999999]:7",
	} {
		c, err := cAddr(netip.MustParseAddrPort(in))
		require.NoError(t, err, in)
		require.Equal(t, want, goAddr(&c).String(), in)
	}
	c, err := cAddr(netip.AddrPort{})
	require.NoError(t, err)
	require.False(t, goAddr(&c).IsValid())
	_, err = cAddr(netip.MustParseAddrPort("[fe80::1%no-such-interface]:7"))
	require.ErrorIs(t, err, syscall.ENODEV)
}

func TestConnParamCrossing(t *testing.T) {
	in := p.CMConnParam{Private: []byte{1, 2, 3}, ResponderResources: 4, InitiatorDepth: 5, FlowControl: true, RetryCount: 6, RNRRetryCount: 7, SRQ: true, QPN: 0x123456}
	c, err := cConn(&in)
	require.NoError(t, err)
	require.Equal(t, "1 2 3", strings.Trim(fmt.Sprint(c.priv[:c.priv_len]), "[]"))
	require.Equal(t, "4 5 1 6 7 1 1193046", fmt.Sprint(c.resp_res, c.init_depth, c.flow, c.retry, c.rnr_retry, c.srq, c.qpn))
	_, err = cConn(&p.CMConnParam{Private: make([]byte, 256)})
	require.ErrorIs(t, err, syscall.EINVAL)
}

func TestCMWithoutModule(t *testing.T) {
	require.NoError(t, CMSetErrno(0))
	require.ErrorIs(t, CMSetErrno(syscall.ENOSPC), syscall.ENOSPC)
	require.Equal(t, "RDMA_CM_EVENT_ADDR_ERROR", CMEventStr(p.CMEventAddrError))
	require.NotEmpty(t, CMEventStr(99))
}
