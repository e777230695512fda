package rdmacm

import (
	"context"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

func TestResolve(t *testing.T) {
	ap := netip.MustParseAddrPort
	for name, c := range map[string]struct {
		node, service string
		hints         AddrInfo
		want          AddrInfo
	}{
		"active": {"127.0.0.1", "7471", AddrInfo{},
			AddrInfo{Family: familyIPv4, QPType: verbs.QPTRC, PortSpace: PSTCP, Dst: ap("127.0.0.1:7471")}},
		"passive": {"::1", "0", AddrInfo{Flags: RAIPassive, PortSpace: PSUDP},
			AddrInfo{Flags: RAIPassive, Family: familyIPv6, QPType: verbs.QPTUD, PortSpace: PSUDP, Src: ap("[::1]:0")}},
		"any": {"", "18515", AddrInfo{Flags: RAIPassive},
			AddrInfo{Flags: RAIPassive, Family: familyIPv4, QPType: verbs.QPTRC, PortSpace: PSTCP, Src: ap("0.0.0.0:18515")}},
		"UD": {"127.0.0.1", "", AddrInfo{QPType: verbs.QPTUD, Src: ap("127.0.0.2:9")},
			AddrInfo{Family: familyIPv4, QPType: verbs.QPTUD, PortSpace: PSUDP, Src: ap("127.0.0.2:9"), Dst: ap("127.0.0.1:0")}},
		"hints alone": {"", "", AddrInfo{Dst: ap("[::1]:5")},
			AddrInfo{Family: familyIPv6, QPType: verbs.QPTRC, PortSpace: PSTCP, Dst: ap("[::1]:5")}},
		"mapped": {"::ffff:127.0.0.1", "1", AddrInfo{},
			AddrInfo{Family: familyIPv4, QPType: verbs.QPTRC, PortSpace: PSTCP, Dst: ap("127.0.0.1:1")}},
	} {
		l, err := resolve(context.Background(), c.node, c.service, c.hints)
		require.NoError(t, err, name)
		require.Equal(t, c.want, l[0], name)
	}
	for name, c := range map[string]struct {
		node, service string
		hints         AddrInfo
		want          error
	}{
		"nothing":      {"", "", AddrInfo{}, syscall.EINVAL},
		"a name":       {"localhost", "1", AddrInfo{Flags: RAINumericHost}, syscall.ENOENT},
		"a port":       {"127.0.0.1", "no-such-service", AddrInfo{}, syscall.ENOENT},
		"other family": {"127.0.0.1", "1", AddrInfo{Flags: RAIFamily, Family: familyIPv6}, syscall.ENOENT},
	} {
		_, err := resolve(context.Background(), c.node, c.service, c.hints)
		require.ErrorIs(t, err, c.want, name)
	}
}

func TestChannelNeedsDevice(t *testing.T) {
	_, err := CreateEventChannelOn(nil)
	require.ErrorIs(t, err, syscall.EINVAL)
	t.Setenv(verbs.EnvDevice, "soft:nowhere")
	_, err = CreateEventChannel()
	require.ErrorContains(t, err, `"nowhere" is no IP address`)
	var v *verbs.Error
	require.ErrorAs(t, err, &v)
}
