package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInfo(t *testing.T) {
	var b [infoSize]byte
	i := info{0x0102030405060708, 0x0a0b0c0d, 0x10}
	i.encode(b[:])
	require.Equal(t, [infoSize]byte{1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 0, 0, 0, 16}, b)
	got, err := decodeInfo(b[:])
	require.NoError(t, err)
	require.Equal(t, i, got)
	require.NoError(t, i.check(16))
	for _, bad := range []info{{1, 1, 0}, {1, 1, 17}, {^uint64(0), 1, 16}} {
		require.Error(t, bad.check(16), "%+v", bad)
	}
	_, err = decodeInfo(b[:15])
	require.ErrorContains(t, err, "15 bytes")
}

func FuzzDecodeInfo(f *testing.F) {
	f.Add([]byte{}, 64)
	f.Add(make([]byte, infoSize), 64)
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x01\xff\xff\xff\xff"), 1<<20)
	f.Fuzz(func(t *testing.T, b []byte, max int) {
		i, err := decodeInfo(b)
		if err != nil {
			return
		}
		var again [infoSize]byte
		i.encode(again[:])
		require.Equal(t, b, again[:])
		if max >= 0 && i.check(max) == nil && (int(i.size) > max || i.addr+uint64(i.size) < i.addr) {
			t.Fatalf("%+v passes with %d", i, max)
		}
	})
}

func TestPingData(t *testing.T) {
	b := make([]byte, 64)
	fillPing(b, 3)
	require.Equal(t, "rdma-ping-3: DEFG", text(b)[:17])
	require.Len(t, text(b), 63)
	seen := map[string]bool{}
	for i := range 50 {
		fillPing(b, i)
		require.False(t, seen[string(b)], "two pings alike")
		seen[string(b)] = true
	}
}

func TestFlags(t *testing.T) {
	for _, bad := range [][]string{{}, {"-s", "-c"}, {"-c"}, {"-s", "-S", "1"}, {"-s", "-C", "-1"}, {"-s", "-p", "70000"}} {
		_, err := parse(bad)
		require.Error(t, err, "%q", bad)
	}
	o, err := parse([]string{"-c", "-a", "::1", "-C", "3", "-v", "-V", "-S", "100", "-p", "9"})
	require.NoError(t, err)
	require.True(t, o.client && o.verbose && o.verify)
	require.Equal(t, []int{3, 100, 9}, []int{o.count, o.size, o.port})
}
