package link

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

// Two loopback addresses that no other test process has, nearly, and one that all
// share.
var (
	lo1 = ownLoopback(1)
	lo2 = ownLoopback(2)
	lo6 = netip.IPv6Loopback()
)

func ownLoopback(i int) netip.Addr {
	p := os.Getpid()
	return netip.AddrFrom4([4]byte{127, byte(64 + p>>8&127), byte(p), byte(i)})
}

// open opens an address, waiting for another process's tests to leave it.
func open(t testing.TB, n Network, addr netip.Addr, h Handler) Link {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		l, err := n.Open(addr, h)
		if errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(end) {
			continue
		}
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, l.Close()) })
		return l
	}
}

// got is a packet that arrived, in memory of its own.
type got struct {
	from netip.Addr
	pkt  wire.Packet
}

// sink keeps what arrives.
type sink struct {
	mu       sync.Mutex
	pkts     []got
	batches  int
	busy     map[Link]bool // in Input
	writable chan struct{}
}

func newSink() *sink { return &sink{busy: map[Link]bool{}, writable: make(chan struct{}, 100)} }

func (s *sink) Input(l Link, batch []Rx) {
	s.mu.Lock()
	if s.busy[l] {
		panic("two calls at a time")
	}
	s.busy[l] = true
	s.mu.Unlock()
	var in []got
	for _, r := range batch {
		g := got{r.Src, r.Pkt}
		g.pkt.Payload = bytes.Clone(r.Pkt.Payload)
		in = append(in, g)
	}
	s.mu.Lock()
	s.busy[l] = false
	s.pkts = append(s.pkts, in...)
	s.batches++
	s.mu.Unlock()
}

func (s *sink) Writable(Link) { s.writable <- struct{}{} }

func (s *sink) all() []got {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pkts[:len(s.pkts):len(s.pkts)]
}

// wait returns what arrived once it is n packets.
func (s *sink) wait(t testing.TB, n int) []got {
	t.Helper()
	require.Eventually(t, func() bool { return len(s.all()) >= n }, 20*time.Second, 100*time.Microsecond)
	return s.all()
}
