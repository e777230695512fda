package rdmatest

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/roce"
	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

// Device is an RDMA device on a Network, opened. Its Context ends with the test.
type Device struct {
	*verbs.Context
	dev   *verbs.Device
	soft  *roce.Device
	addrs []netip.Addr
}

// Device puts a device on the network and opens it. Without addresses it has an
// IPv4 and an IPv6 one of its own: 10.0.0.1 and fd00:7a72:646d::1 for the first
// device, and so on.
func (n *Network) Device(t TB, addrs ...netip.Addr) *Device {
	t.Helper()
	if len(addrs) == 0 {
		addrs = n.nextAddrs()
	}
	names := make([]string, len(addrs))
	for i, a := range addrs {
		names[i] = a.String()
	}
	name := "soft:" + strings.Join(names, ",")
	p := roce.New(roce.Config{Name: name, Addrs: addrs, Net: n.faults, Seed: n.seedOf(name)})
	d := &Device{dev: bridge.Device(p).(*verbs.Device), soft: p, addrs: addrs}
	d.Context = d.Open(t)
	n.add(d)
	n.closeAtEnd(t, d.Context)
	return d
}

// seedOf makes a seed, never 0, for the keys and numbers of a device.
func (n *Network) seedOf(name string) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, n.seed, name)
	return h.Sum64() | 1
}

// Open opens the device once more; the caller closes the context.
func (d *Device) Open(t TB) *verbs.Context {
	t.Helper()
	c, err := d.dev.Open()
	if err != nil {
		t.Fatalf("rdmatest: %v", err)
	}
	return c
}

// closeAtEnd closes the context of a device at the end of the test. What was left
// open is a failure, said once.
func (n *Network) closeAtEnd(t TB, c *verbs.Context) {
	t.Cleanup(func() {
		err := c.Close()
		if errors.Is(err, verbs.ErrInUse) {
			t.Errorf("rdmatest: %s is still in use; left open:\n%s", c.Name(), strings.Join(n.left(), "\n"))
			return
		}
		if err != nil {
			t.Errorf("rdmatest: closing %s: %v", c.Name(), err)
		}
	})
}

// open counts the open objects of this process, by the stack that made them.
func open() map[string]int {
	m := map[string]int{}
	for _, s := range handle.Live() {
		m[s]++
	}
	return m
}

// left are the objects that are open and were not when the network was made. With
// tests that run in parallel, theirs are among them.
func (n *Network) left() (out []string) {
	for s, k := range open() {
		if k > n.before[s] && !strings.HasPrefix(s, "verbs.Context ") {
			out = append(out, s)
		}
	}
	return out
}

// Addr is the first address, an IPv4 one unless others were given.
func (d *Device) Addr() netip.Addr { return d.addrs[0] }

// Addr6 is the first IPv6 address, invalid when there is none.
func (d *Device) Addr6() netip.Addr {
	for _, a := range d.addrs {
		if a.Is6() {
			return a
		}
	}
	return netip.Addr{}
}

// Dial is rdmacm.Dial from this device.
func (d *Device) Dial(ctx context.Context, peer netip.AddrPort, cfg rdmacm.DialConfig) (*rdmacm.Conn, error) {
	cfg.Device = d.Context
	return rdmacm.Dial(ctx, peer, cfg)
}

// Listen is rdmacm.Listen on this device's first address; port 0 chooses one.
func (d *Device) Listen(ctx context.Context, port uint16, cfg rdmacm.ListenConfig) (*rdmacm.Listener, error) {
	cfg.Device = d.Context
	return rdmacm.Listen(ctx, netip.AddrPortFrom(d.Addr(), port), cfg)
}

// Connect connects two devices, which may be one, by a reliable connection made
// of cfg on both sides, and closes both ends with the test. cfg.Setup is called
// for each end, to post receives before the other can send.
func Connect(t TB, from, to *Device, cfg rdmacm.DialConfig) (client, server *rdmacm.Conn) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l, err := to.Listen(ctx, 0, rdmacm.ListenConfig{QP: cfg.QP, Conn: cfg.Conn, Setup: cfg.Setup})
	if err != nil {
		t.Fatalf("rdmatest: %v", err)
	}
	defer l.Close()
	type result struct {
		c   *rdmacm.Conn
		err error
	}
	accepted := make(chan result, 1)
	go func() {
		c, err := l.Accept(ctx)
		accepted <- result{c, err}
	}()
	if client, err = from.Dial(ctx, l.Addr(), cfg); err != nil {
		cancel()
		<-accepted
		t.Fatalf("rdmatest: %v", err)
	}
	closeConn(t, client)
	r := <-accepted
	if r.err != nil {
		t.Fatalf("rdmatest: %v", r.err)
	}
	closeConn(t, r.c)
	return client, r.c
}

func closeConn(t TB, c *rdmacm.Conn) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("rdmatest: closing the connection to %v: %v", c.PeerAddr(), err)
		}
	})
}
