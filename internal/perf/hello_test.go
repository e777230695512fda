package perf

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHelloLine(t *testing.T) {
	h := hello{Min: 1, Max: 3, Release: "v1.2.3"}
	require.Equal(t, "ZRDMA-BENCH min=1 max=3 release=v1.2.3\n", string(h.encode()), "all releases must read this")
	got, err := decodeHello([]byte("ZRDMA-BENCH min=1 max=3 release=v1.2.3 later=1"))
	require.NoError(t, err)
	require.Equal(t, h, got)
	h.Refused = "busy with\nsomebody \x1b[31m" + strings.Repeat("x", 1000)
	line := string(h.encode())
	require.LessOrEqual(t, len(line), maxHello)
	require.Equal(t, 1, strings.Count(line, "\n"))
	got, err = decodeHello([]byte(strings.TrimSuffix(line, "\n")))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(got.Refused, "busy with somebody  [31mxxx"), got.Refused)
	for _, bad := range []string{"", "ZRDMA-PING/1", "ZRDMA-BENCH", "ZRDMA-BENCH min=0 max=1", "ZRDMA-BENCH min=2 max=1", "ZRDMA-BENCH min=1 max=1 max=2", "ZRDMA-BENCH min max"} {
		_, err := decodeHello([]byte(bad))
		require.ErrorIs(t, err, errStranger, bad)
	}
}

func TestVersionsAgree(t *testing.T) {
	for _, c := range []struct {
		min, max, want int
		why            string
	}{
		{1, 1, 1, ""}, {1, 9, 1, ""},
		{2, 9, 0, "upgrade this end"},
	} {
		v, err := hello{Min: c.min, Max: c.max, Release: "r"}.agree()
		require.Equal(t, c.want, v)
		if c.why != "" {
			require.ErrorContains(t, err, c.why)
			require.ErrorContains(t, err, fmt.Sprintf("versions %d to %d", c.min, c.max))
			require.ErrorAs(t, err, new(*PeerError))
		}
	}
}

func FuzzDecodeHello(f *testing.F) {
	f.Add([]byte("ZRDMA-BENCH min=1 max=3 release=v1.2.3 refused=busy"))
	f.Add([]byte("6.11"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err != nil {
			return
		}
		_, _ = h.agree()
		again, err := decodeHello(h.encode()[:len(h.encode())-1])
		require.NoError(t, err)
		require.Equal(t, h.Min, again.Min)
		require.Equal(t, h.Max, again.Max)
	})
}

// fake is a server of which the test says what it says.
func fake(t *testing.T, say string, close bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		buf := make([]byte, 512)
		c.SetDeadline(time.Now().Add(time.Minute))
		_, _ = c.Read(buf)
		_, _ = c.Write([]byte(say))
		if !close {
			_, _ = c.Read(buf) // until the client is gone
		}
		c.Close()
	}()
	return l.Addr().String()
}

func TestOtherPrograms(t *testing.T) {
	p := newPair(t)
	for say, want := range map[string]string{
		"6.11\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00": "this looks like perftest",
		"0000:000012:790cb7:":                  "perftest",
		"ZRDMA-PING/1 error=x\n":               "zrdma ping",
		"SSH-2.0-x\r\n":                        "does not speak",
		"":                                     "without a word",
		"ZRDMA-BENCH min=7 max=9 release=v9\n": "upgrade this end",
		"ZRDMA-BENCH min=1 max=9 release=v9 refused=busy with x\n": "busy with x",
	} {
		_, err := Dial(t.Context(), p.client, fake(t, say, say == ""), "test")
		require.ErrorContains(t, err, want, "%q", say)
	}
}

// What strangers say to a server: it tells them who it is, and goes on.
func TestStrangersAtTheServer(t *testing.T) {
	p := newPair(t)
	for say, want := range map[string]string{
		"6.11\x00\x00\x00":                                   "perftest",
		"GET / HTTP/1.1\r\n\r\n":                             "does not speak",
		"ZRDMA-PING/1 size=1\n":                              "zrdma ping",
		"ZRDMA-BENCH min=7 max=9 release=v9\n":               "versions 7 to 9",
		"ZRDMA-BENCH min=1 max=1 release=a\nx\n":             "no message",
		"ZRDMA-BENCH min=1 max=1 release=a\n{\"stop\":{}}\n": "out of turn",
	} {
		c, err := net.Dial("tcp", p.l.Addr().String())
		require.NoError(t, err)
		_, err = c.Write([]byte(say))
		require.NoError(t, err)
		h, err := readHello(c)
		require.NoError(t, err, "%q", say)
		require.Equal(t, maxVersion, h.Max)
		s := <-p.left
		require.ErrorContains(t, s.Err, want, "%q", say)
		c.Close()
	}
	s, err := p.dial(t).Run(t.Context(), Case{Op: Write, Size: 8, Count: 1})
	require.NoError(t, err)
	require.Equal(t, int64(1), s.Messages)
}
