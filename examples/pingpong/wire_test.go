package main

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

// What ibv_rc_pingpong of rdma-core 44 put on the wire.
const recorded = "0000:000012:790cb7:00000000000000000000ffff0a4d0001\x00"

func TestRecordedAddress(t *testing.T) {
	a, err := decode([]byte(recorded))
	require.NoError(t, err)
	require.Equal(t, address{0, 0x12, 0x790cb7, verbs.GIDFromAddr(netip.MustParseAddr("10.77.0.1"))}, a)
	require.Equal(t, recorded, string(a.encode()))
	require.Len(t, recorded, wireLen)
}

func TestDecodeRefuses(t *testing.T) {
	for _, s := range []string{
		"", "\x00", "done\x00", ":::", "0:1:2", recorded[:40], "1" + recorded,
		strings.Replace(recorded, "790cb7", "1790cb7", 1), // 25 bits
		strings.Replace(recorded, "0a4d", "0a4", 1),
		strings.Replace(recorded, "000012", "-00012", 1),
		strings.Replace(recorded, "000012", "00001z", 1),
	} {
		_, err := decode([]byte(s))
		require.Error(t, err, "%q", s)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(recorded))
	f.Add([]byte("zz:::"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(a.encode())
		require.NoError(t, err)
		require.Equal(t, a, again)
	})
}

func TestMeeting(t *testing.T) {
	c, s := net.Pipe()
	client, server := address{1, 2, 3, verbs.GID{15: 1}}, address{4, 5, 6, verbs.GID{15: 2}}
	var order []string
	done := make(chan error, 1)
	go func() {
		done <- asServer(s, server, func(peer address) error {
			order = append(order, "server")
			require.Equal(t, client, peer)
			return nil
		})
	}()
	require.NoError(t, asClient(c, client, func(peer address) error {
		order = append(order, "client")
		require.Equal(t, server, peer)
		return nil
	}))
	require.NoError(t, <-done)
	require.Equal(t, []string{"server", "client"}, order, "the server is ready before the client knows where to send")
}

func TestMeetingEndsWithThePeer(t *testing.T) {
	c, s := net.Pipe()
	go func() {
		io.WriteString(c, recorded[:20])
		c.Close()
	}()
	done := make(chan error, 1)
	go func() { done <- asServer(s, address{}, func(address) error { return nil }) }()
	select {
	case err := <-done:
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	case <-time.After(5 * time.Second):
		t.Fatal("still waiting")
	}
}

func TestValidate(t *testing.T) {
	e := &end{options: options{size: 9000, check: true}, inB: make([]byte, 9000), outB: make([]byte, 9000)}
	fill(e.outB)
	copy(e.inB, e.outB)
	require.NoError(t, e.validate(9000))
	require.ErrorContains(t, e.validate(9000), "byte 1 of", "the buffer was cleared")
	copy(e.inB, e.outB)
	e.inB[8999]++
	require.ErrorContains(t, e.validate(9000), "byte 8999 ")
	require.ErrorContains(t, e.validate(10), "-s")
}
