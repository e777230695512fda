package rsocket

import (
	"net/netip"
	"syscall"
	"testing"
)

func TestSockaddrRoundTrip(t *testing.T) {
	for _, c := range []struct {
		in     string
		domain int
		want   string // empty for EAFNOSUPPORT
	}{
		{"192.0.2.1:4791", AFInet, "192.0.2.1:4791"},
		{"[::ffff:192.0.2.1]:1", AFInet, "192.0.2.1:1"},
		{"192.0.2.1:65535", AFInet6, "[::ffff:192.0.2.1]:65535"},
		{"[2001:db8::1]:7", AFInet6, "[2001:db8::1]:7"},
		{"[fe80::1%3]:7", AFInet6, "[fe80::1%3]:7"},
		{"[2001:db8::1]:7", AFInet, ""},
	} {
		b, err := sockaddr(netip.MustParseAddrPort(c.in), c.domain)
		if c.want == "" {
			if err != syscall.EAFNOSUPPORT {
				t.Errorf("%s: %v, want EAFNOSUPPORT", c.in, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if got := addrPort(b).String(); got != c.want {
			t.Errorf("%s came back as %s, want %s", c.in, got, c.want)
		}
	}
	if _, err := sockaddr(netip.AddrPort{}, AFInet6); err != syscall.EAFNOSUPPORT {
		t.Errorf("the zero address: %v, want EAFNOSUPPORT", err)
	}
	b, _ := sockaddr(netip.MustParseAddrPort("1.2.3.4:258"), AFInet)
	if want := []byte{1, 2, 1, 2, 3, 4}; string(b[2:8]) != string(want) {
		t.Errorf("port and address are not big-endian: % x", b)
	}
}

func TestAddrPortOfWhatIsNone(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 15), make([]byte, 28), {10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if a := addrPort(b); a.IsValid() {
			t.Errorf("% x gave %v", b, a)
		}
	}
}
