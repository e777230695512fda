package pingpong

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/verbs"
)

var sample = Hello{QPN: 0x123456, PSN: 0xfedcba, LID: 7, GID: verbs.GIDFromAddr(netip.MustParseAddr("10.77.0.1")), MTU: verbs.MTU4096, Size: 65536, Transport: RC}

const sampleLine = "ZRDMA-PING/1 qpn=123456 psn=fedcba lid=0007 gid=00000000000000000000ffff0a4d0001 mtu=4096 size=65536\n"

func TestHelloLine(t *testing.T) {
	require.Equal(t, sampleLine, string(sample.Encode()), "changing this needs another Version")
	got, err := DecodeHello([]byte(strings.TrimSuffix(sampleLine, "\n") + " later=1"))
	require.NoError(t, err)
	require.Equal(t, sample, got)

	ud := sample
	ud.Transport, ud.QKey = UD, 0x1234abcd
	require.Equal(t, strings.TrimSuffix(sampleLine, "\n")+" transport=ud qkey=1234abcd\n", string(ud.Encode()))
	got, err = DecodeHello(ud.Encode()[:len(ud.Encode())-1])
	require.NoError(t, err)
	require.Equal(t, ud, got)
}

func TestShortHello(t *testing.T) {
	b := Hello{Size: MaxSize}.short()
	require.LessOrEqual(t, len(b), 56, "the private data of a connection request")
	n, err := decodeShort(append(b, make([]byte, 20)...))
	require.NoError(t, err)
	require.Equal(t, MaxSize, n)
	for _, bad := range []string{"", "\n", "ZRDMA-PING/1 size=5", "ZRDMA-PING/1 size=-5\n", "ZRDMA-PING/1 \n", "x\n"} {
		_, err := decodeShort([]byte(bad))
		require.ErrorIs(t, err, errNotPing, "%q", bad)
	}
	_, err = decodeShort([]byte("ZRDMA-PING/9 size=5\n"))
	require.True(t, Misfit(err), "%v", err)
	_, err = decodeShort(refusalData(errors.New(strings.Repeat("long ", 100))))
	var r Refused
	require.ErrorAs(t, err, &r)
}

func TestDecodeHelloRefuses(t *testing.T) {
	line := strings.TrimSuffix(sampleLine, "\n")
	for name, c := range map[string]struct{ line, want string }{
		"empty":          {"", "does not speak"},
		"other protocol": {"GET / HTTP/1.1", "does not speak"},
		"no version":     {"ZRDMA-PING/ qpn=1", "does not speak"},
		"no fields":      {"ZRDMA-PING/1", `qpn=""`},
		"25 bit":         {strings.Replace(line, "123456", "1234567", 1), "qpn="},
		"negative":       {strings.Replace(line, "65536", "-1", 1), "size="},
		"huge":           {strings.Replace(line, "65536", "99999999999999999999", 1), "out of range"},
		"mtu":            {strings.Replace(line, "4096", "1500", 1), "mtu=1500"},
		"short gid":      {strings.Replace(line, "0a4d0001", "0a4d", 1), "gid="},
		"gid not hex":    {strings.Replace(line, "0a4d0001", "0a4d000x", 1), "gid="},
		"twice":          {line + " mtu=1024", `"mtu" stands twice`},
		"no value":       {line + " mtu", "not key=value"},
		"transport":      {line + " transport=uc", `no transport="uc"`},
		"no qkey":        {line + " transport=ud", "qkey="},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeHello([]byte(c.line))
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestOtherVersion(t *testing.T) {
	_, err := DecodeHello([]byte("ZRDMA-PING/2 anything at all"))
	require.Equal(t, VersionError{"2"}, err)
	require.ErrorContains(t, err, "version 2")
	require.ErrorContains(t, err, "version 1")
}

func TestRefusal(t *testing.T) {
	line := encodeRefusal("no\nroom\x1b[31m " + strings.Repeat("ä", 1000))
	require.LessOrEqual(t, len(line), maxLine)
	require.Equal(t, 1, strings.Count(string(line), "\n"))
	_, err := DecodeHello(line[:len(line)-1])
	var r Refused
	require.ErrorAs(t, err, &r)
	require.True(t, strings.HasPrefix(string(r), "no room [31m "), "%q", r)
	_, err = DecodeHello([]byte("ZRDMA-PING/1 error=\x1b[31m"))
	require.NotContains(t, err.Error(), "\x1b", "a peer's text must not reach the terminal raw")
}

func FuzzDecodeHello(f *testing.F) {
	f.Add([]byte(strings.TrimSuffix(sampleLine, "\n")))
	f.Add([]byte("ZRDMA-PING/2"))
	f.Add([]byte("ZRDMA-PING/1 error=x"))
	f.Add([]byte("ZRDMA-PING/1 qpn= = ="))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHello(b)
		if err != nil {
			_ = err.Error()
			return
		}
		line := h.Encode()
		again, err := DecodeHello(line[:len(line)-1])
		require.NoError(t, err)
		require.Equal(t, h, again)
	})
}

// feed gives what a server reads from a peer that sends text, and then nothing.
func feed(t *testing.T, text string, close bool) error {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close(); there.Close() })
	go func() {
		there.Write([]byte(text))
		if close {
			there.Close()
		}
	}()
	here.SetDeadline(time.Now().Add(100 * time.Millisecond))
	done := make(chan error, 1)
	go func() {
		_, err := readHello(here)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("still reading")
		return nil
	}
}

func TestReadHello(t *testing.T) {
	require.NoError(t, feed(t, sampleLine, false))
	require.ErrorContains(t, feed(t, "", true), "without a word")
	require.Error(t, feed(t, sampleLine[:30], true))
	var nerr net.Error
	require.ErrorAs(t, feed(t, sampleLine[:30], false), &nerr)
	require.True(t, nerr.Timeout(), "a silent peer")
	require.ErrorIs(t, feed(t, "SSH-2.0-x", false), errNotPing)
	require.ErrorContains(t, feed(t, "0000:000012:790cb7:", false), "examples/pingpong")
	require.ErrorIs(t, feed(t, magic+strings.Repeat("1", 10_000), false), errNotPing)
}

// A server without a device: what it does with peers that are none.
func TestServerRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"ZRDMA-PING/9 x=y\n":                                    "version 9",
		strings.Replace(sampleLine, "=65536", "=0", 1):          "1 to",
		strings.Replace(sampleLine, "=65536", "=2147483647", 1): "1 to",
	} {
		here, there := net.Pipe()
		d := New(&endpoint.Device{}, false)
		done := make(chan Session, 1)
		go func() { done <- d.ServeConn(t.Context(), there) }()
		here.SetDeadline(time.Now().Add(10 * time.Second))
		_, err := here.Write([]byte(text))
		require.NoError(t, err)
		_, err = readHello(here)
		var r Refused
		require.ErrorAs(t, err, &r)
		require.ErrorContains(t, err, want)
		s := <-done
		var se *endpoint.StepError
		require.True(t, errors.As(s.Err, &se), "%v", s.Err)
		here.Close()
	}
}
