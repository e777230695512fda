package dpu

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPair(t *testing.T) {
	for _, c := range []struct{ host, soc, by string }{
		{"bluefield2-host", "bluefield2-soc", "both have serial MT2133X01234"},
		{"bluefield3-host", "bluefield3-soc", "both have serial MT2331XZ0CGM"},
	} {
		host, soc := discover(t, c.host), discover(t, c.soc)
		l := Pair(host, soc)
		require.Len(t, l, 1)
		require.True(t, l[0].Certain)
		require.Equal(t, c.by, l[0].Evidence[0].Says)
		require.Len(t, l[0].Functions, 1)
		require.Equal(t, "behind pf0hpf", l[0].Functions[0].SoC.Name())
		require.Equal(t, PF, l[0].Functions[0].Host.Kind.Value)
	}
}

func known[T comparable](v T) Claim[T] {
	return Claim[T]{v, []Evidence{{FromSysfs, "test", "test"}}}
}

func TestPairRules(t *testing.T) {
	card := func(serial, guid, mac string, remote bool) Card {
		c := Card{}
		if serial != "" {
			c.Serial = known(serial)
		}
		if guid != "" {
			c.SysImageGUID = known(guid)
		}
		if mac != "" {
			c.Functions = []Function{{PCI: "0000:03:00.0", Remote: remote, MAC: known(mac), Kind: known(PF)}}
		}
		return c
	}
	for name, c := range map[string]struct {
		host, soc []Card
		pairs     int
		certain   bool
	}{
		"by serial":             {[]Card{card("MT01", "", "", false)}, []Card{card("MT01", "", "", true)}, 1, true},
		"by address":            {[]Card{card("MT01", "", "aa", false)}, []Card{card("", "", "aa", true)}, 1, true},
		"by GUID, a hint":       {[]Card{card("", "g", "", false)}, []Card{card("", "g", "", true)}, 1, false},
		"serials differ":        {[]Card{card("MT01", "g", "aa", false)}, []Card{card("MT02", "g", "aa", true)}, 0, false},
		"placeholder serial":    {[]Card{card("0000000", "", "", false)}, []Card{card("0000000", "", "", true)}, 0, false},
		"two hosts fit":         {[]Card{card("MT01", "", "", false), card("MT01", "", "", false)}, []Card{card("MT01", "", "", true)}, 0, false},
		"two, address decides":  {[]Card{card("MT01", "", "aa", false), card("MT01", "", "bb", false)}, []Card{card("MT01", "", "bb", true)}, 1, true},
		"address of no port":    {[]Card{card("", "", "aa", false)}, []Card{card("", "", "aa", false)}, 0, false},
		"nothing known":         {[]Card{card("", "", "", false)}, []Card{card("", "", "", true)}, 0, false},
		"two cards, each its's": {[]Card{card("MT01", "", "", false), card("MT02", "", "", false)}, []Card{card("MT02", "", "", true)}, 1, true},
	} {
		l := Pair(&Inventory{Cards: c.host}, &Inventory{Cards: c.soc})
		require.Len(t, l, c.pairs, name)
		if c.pairs == 1 {
			require.Equal(t, c.certain, l[0].Certain, name)
		}
	}
	require.Empty(t, Pair(nil, &Inventory{}))
}
