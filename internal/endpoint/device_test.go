package endpoint

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

func TestFirstOfKind(t *testing.T) {
	entry := func(port, index uint32, addr string, typ verbs.GIDType) verbs.GIDEntry {
		return verbs.GIDEntry{GID: verbs.GIDFromAddr(netip.MustParseAddr(addr)), Index: index, Port: port, Type: typ}
	}
	table := []verbs.GIDEntry{
		entry(1, 0, "fe80::1", verbs.GIDTypeRoCEV2),
		entry(1, 1, "10.0.0.1", verbs.GIDTypeRoCEV1),
		entry(1, 2, "10.0.0.1", verbs.GIDTypeRoCEV2),
		entry(1, 3, "fd00::1", verbs.GIDTypeRoCEV2),
		entry(2, 0, "10.0.1.1", verbs.GIDTypeRoCEV2),
	}
	for like, want := range map[string]uint32{"192.0.2.1": 2, "::ffff:192.0.2.1": 2, "2001:db8::1": 3, "::1": 3, "fe80::2": 0} {
		e, ok := firstOfKind(table, 1, netip.MustParseAddr(like))
		require.True(t, ok, like)
		require.Equal(t, want, e.Index, like)
	}
	_, ok := firstOfKind(table, 2, netip.MustParseAddr("fd00::1"))
	require.False(t, ok)
}
