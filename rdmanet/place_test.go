package rdmanet

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/verbs"
)

// place is where connections are tested: two devices, which may be one.
type place struct {
	server, client *qp.Device
	addr           string // of the server
}

// testDevice names the device to test, rxe0 for instance; empty: software devices.
func testDevice() string { return os.Getenv("ZRDMA_TEST_DEVICE") }

// places are all that can be tested here.
func places(t *testing.T, f func(t *testing.T, p *place)) {
	if testDevice() != "" {
		t.Run(testDevice(), func(t *testing.T) { f(t, here(t)) })
		return
	}
	t.Run("udp", func(t *testing.T) { f(t, here(t)) })
	t.Run("memory", func(t *testing.T) {
		p, _, _, _ := memory(t)
		f(t, p)
	})
}

// here is the named device, or software ones over UDP on loopback.
func here(t testing.TB) *place {
	if name := testDevice(); name != "" {
		d := openQP(t, qp.DeviceConfig{Name: name})
		return newPlace(t, d, d)
	}
	return newPlace(t, udp(t, 1), udp(t, 2))
}

// udp is a device on a loopback address of this process: another run of the tests
// may have the others.
func udp(t testing.TB, n byte) *qp.Device {
	pid := os.Getpid()
	addr := netip.AddrFrom4([4]byte{127, 100 + n, byte(pid >> 8), byte(pid)})
	c, err := verbs.OpenSoft(verbs.SoftConfig{Addrs: []netip.Addr{addr}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return openQP(t, qp.DeviceConfig{Context: c})
}

// memory is two devices on a network whose faults can be set.
func memory(t testing.TB) (p *place, n *rdmatest.Network, server, client *rdmatest.Device) {
	n = rdmatest.NewNetwork(t, 1)
	server, client = n.Device(t), n.Device(t)
	return newPlace(t, openQP(t, qp.DeviceConfig{Context: server.Context}), openQP(t, qp.DeviceConfig{Context: client.Context})), n, server, client
}

func openQP(t testing.TB, cfg qp.DeviceConfig) *qp.Device {
	cfg.Pool = mr.PoolConfig{Canaries: true}
	d, err := qp.Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, d.Close(), "something of package rdmanet is left open")
	})
	return d
}

func newPlace(t testing.TB, server, client *qp.Device) *place {
	g, err := server.Context().SelectGID(server.Port(), netip.Addr{})
	require.NoError(t, err)
	return &place{server, client, netip.AddrPortFrom(g.GID.Addr(), 0).String()}
}

// listen listens until the test ends.
func (p *place) listen(t testing.TB, cfg Config) *Listener {
	cfg.Device = p.server
	l, err := Listen(t.Context(), p.addr, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func (p *place) dialer(cfg Config) *Dialer {
	cfg.Device = p.client
	return &Dialer{Config: cfg, Timeout: patience}
}

const patience = 20 * time.Second

// connect makes a connection through l.
func (p *place) connect(l *Listener, cfg Config) (client, server *Conn, err error) {
	var aerr error
	var wg sync.WaitGroup
	wg.Go(func() {
		if aerr = l.SetDeadline(time.Now().Add(patience)); aerr == nil {
			server, aerr = l.AcceptConn()
		}
	})
	client, err = p.dialer(cfg).Connect(context.Background(), l.Addr().String())
	wg.Wait()
	return client, server, errors.Join(err, aerr)
}

// pair is connect for a test, which closes both.
func (p *place) pair(t testing.TB, cfg Config) (client, server *Conn) {
	client, server, err := p.connect(p.listen(t, cfg), cfg)
	require.NoError(t, err)
	for _, c := range []*Conn{client, server} {
		t.Cleanup(func() { _ = c.Close() })
	}
	return client, server
}
