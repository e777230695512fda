//go:build linux

package link

import (
	"bytes"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

// fakeKernel stands for sendmsg.
type fakeKernel struct {
	errs map[bool]syscall.Errno // by whether the call has segments
	sent [][]byte               // a packet each
	call int
	ids  []uint16 // that the kernel would have given
}

func (k *fakeKernel) transmit(pieces [][]byte, seg int) syscall.Errno {
	b := bytes.Join(pieces, nil)
	k.call++
	if e := k.errs[seg != 0]; e != 0 {
		return e
	}
	if seg == 0 {
		seg = len(b)
	}
	for id := uint16(0); len(b) > 0; id++ {
		n := min(seg, len(b))
		k.sent, k.ids = append(k.sent, bytes.Clone(b[:n])), append(k.ids, id)
		b = b[n:]
	}
	return 0
}

// faked opens a link whose system calls go to the fake.
func faked(t *testing.T, s Handler) (*udpLink, *fakeKernel) {
	l := open(t, UDP(UDPOptions{ICRC: true}), lo1, s).(*udpLink)
	k := &fakeKernel{errs: map[bool]syscall.Errno{}}
	l.tx.transmit = k.transmit
	return l, k
}

// intact checks what was sent against its identification, and returns the PSNs.
func (k *fakeKernel) intact(t *testing.T) (out []uint32) {
	a := wire.Addrs{Src: lo1, Dst: lo2, SrcPort: wire.Port, DstPort: wire.Port, DF: true}
	for i, b := range k.sent {
		a.ID = k.ids[i]
		require.True(t, a.Check(b), "packet %d with identification %d", i, a.ID)
		var p wire.Packet
		require.NoError(t, p.Decode(b))
		out = append(out, p.PSN)
	}
	return out
}

func sendSizes(l Link, from uint32, sizes ...int) {
	for i, n := range sizes {
		p := wire.Packet{Opcode: wire.RCSendOnly, PSN: from + uint32(i)}
		l.Send(lo2, &p, [][]byte{make([]byte, n)}, n)
	}
}

func TestBatches(t *testing.T) {
	for name, x := range map[string]struct {
		sizes []int
		calls int
	}{
		"one":             {[]int{5}, 1},
		"same":            {[]int{64, 64, 64, 64}, 1},
		"same but padded": {[]int{64, 63, 62, 61}, 1},
		"last shorter":    {[]int{64, 64, 8}, 1},
		"shorter between": {[]int{64, 8, 64, 64}, 2},
		"longer":          {[]int{8, 64, 64}, 2},
		"empty":           {[]int{0, 0, 0}, 1},
		"many":            {make([]int, 2*batchPackets+1), 3},
		"large":           {[]int{4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			l, k := faked(t, newSink())
			sendSizes(l, 0, x.sizes...)
			require.NoError(t, l.Flush())
			require.NoError(t, l.Flush())
			require.Equal(t, x.calls, k.call)
			got := k.intact(t)
			require.Len(t, got, len(x.sizes))
			for i, n := range got {
				require.EqualValues(t, i, n)
			}
		})
	}
}

// Whatever the kernel refuses to send whole goes packet by packet.
func TestWithoutSegmentation(t *testing.T) {
	for _, e := range []syscall.Errno{unix.EINVAL, unix.EIO} {
		l, k := faked(t, newSink())
		k.errs[true] = e
		r := rand.New(rand.NewPCG(1, 1))
		for i := range 50 {
			sendSizes(l, uint32(i), r.IntN(300))
		}
		require.NoError(t, l.Flush())
		require.Len(t, k.intact(t), 50)
		require.EqualValues(t, 50, l.Stats().TxPackets)
		require.Zero(t, l.Stats().TxDropped)
		for _, id := range k.ids {
			require.Zero(t, id)
		}
		require.NoError(t, l.Close())
	}
	// A destination out of reach is no reason to give segments up.
	l, k := faked(t, newSink())
	k.errs[true], k.errs[false] = unix.EINVAL, unix.EMSGSIZE
	sendSizes(l, 0, 64, 64)
	require.NoError(t, l.Flush())
	require.EqualValues(t, 2, l.Stats().TxDropped)
	clear(k.errs)
	k.call = 0
	sendSizes(l, 0, 64, 64)
	require.NoError(t, l.Flush())
	require.Equal(t, 1, k.call)
}

func TestFullSocket(t *testing.T) {
	s := newSink()
	l, k := faked(t, s)
	k.errs[true], k.errs[false] = unix.EAGAIN, unix.EAGAIN
	sendSizes(l, 0, 64, 64)
	require.ErrorIs(t, l.Flush(), unix.EAGAIN)
	<-s.writable                      // the socket itself has room
	sendSizes(l, 2, 64, 4000, 64, 64) // all fit but the long one
	require.ErrorIs(t, l.Flush(), unix.EAGAIN)
	<-s.writable
	require.EqualValues(t, 1, l.Stats().TxDropped)
	clear(k.errs)
	require.NoError(t, l.Flush())
	require.Equal(t, []uint32{0, 1, 2, 4, 5}, k.intact(t))
	sendSizes(l, 6, 64)
	require.NoError(t, l.Flush())
	require.Equal(t, []uint32{0, 1, 2, 4, 5, 6}, k.intact(t))
}

// gate lets nobody through until it is closed.
type gate chan struct{}

func (g gate) Input(Link, []Rx) { <-g }
func (gate) Writable(Link)      {}

// What the kernel drops for want of room is counted.
func TestDropsAreCounted(t *testing.T) {
	n, g := UDP(UDPOptions{RecvBuffer: 4096}), make(gate)
	a, b := open(t, n, lo1, newSink()), open(t, n, lo2, g)
	for range 100 {
		sendSizes(a, 0, 4000, 4000, 4000)
		require.NoError(t, a.Flush())
	}
	close(g)
	// The count comes with the next packet that gets through.
	require.Eventually(t, func() bool {
		sendSizes(a, 0, 10)
		require.NoError(t, a.Flush())
		return b.Stats().RxDropped > 0
	}, 20*time.Second, 100*time.Microsecond)
}

// Nothing that the network brings breaks the splitting of a train.
func FuzzTrain(f *testing.F) {
	a := wire.Addrs{Src: lo1, Dst: lo2, SrcPort: wire.Port, DstPort: wire.Port, DF: true}
	good := appendPacket(nil, 0, &a, &wire.Packet{Opcode: wire.RCSendOnly}, [][]byte{make([]byte, 20)}, 20)
	f.Add(good, len(good))
	f.Add(append(good, good...), len(good))
	f.Add(append(good, good...), len(good)-1)
	f.Add([]byte{}, 1)
	l := &udpLink{addr: lo2}
	var r receiver
	r.init(l, true)
	f.Fuzz(func(t *testing.T, b []byte, seg int) {
		if seg < 1 || len(b) > recvBytes {
			return
		}
		before := l.Stats()
		r.pkts = r.pkts[:0]
		r.split(l, 0, b, seg)
		s := l.Stats()
		want := (len(b) + seg - 1) / seg
		if got := s.RxPackets + s.RxBadICRC + s.RxMalformed - before.RxPackets - before.RxBadICRC - before.RxMalformed; got != uint64(want) {
			t.Fatalf("%d packets of a train of %d", got, want)
		}
	})
}

// Nothing is allocated for a packet.
func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and makes sync.Pool forget")
	}
	for name, n := range map[string]Network{"udp": UDP(UDPOptions{}), "memory": Memory(0, MemOptions{})} {
		t.Run(name, func(t *testing.T) {
			c := &copier{mem: make([]byte, 1<<16)}
			a, b := open(t, n, lo1, &copier{}), open(t, n, lo2, c)
			p := wire.Packet{Opcode: wire.RCSendOnly}
			segs := [][]byte{make([]byte, 1000)}
			want := int64(0)
			require.Zero(t, testing.AllocsPerRun(200, func() {
				for range 20 {
					a.Send(lo2, &p, segs, 1000)
				}
				if a.Flush() != nil {
					t.Fatal("flush")
				}
				for want += 20; c.n.Load() < want; {
					b.Poll()
				}
			}))
		})
	}
}

// Long payloads are sent from where they lie, unless the batch has to wait or to
// be taken apart: then from a copy.
func TestBatchOfReferences(t *testing.T) {
	for name, e := range map[string]syscall.Errno{"taken": 0, "full socket": unix.EAGAIN, "no segments": unix.EINVAL} {
		t.Run(name, func(t *testing.T) {
			l, k := faked(t, newSink())
			k.errs[true] = e
			rnd := rand.NewChaCha8([32]byte{7})
			var want [][]byte
			var mem [][]byte
			for i, n := range []int{4096, 4096, 4094, 100} { // the third is padded
				b := make([]byte, n)
				_, _ = rnd.Read(b)
				mem, want = append(mem, b), append(want, bytes.Clone(b))
				p := wire.Packet{Opcode: wire.RCWriteMiddle, PSN: uint32(i)}
				l.Send(lo2, &p, [][]byte{b}, n)
			}
			err := l.Flush()
			for _, b := range mem { // the lock is free: the owner may do with it what he likes
				clear(b)
			}
			if e == unix.EAGAIN {
				require.Equal(t, unix.EAGAIN, err)
				k.errs[true] = 0
				require.NoError(t, l.Flush())
			}
			require.Equal(t, []uint32{0, 1, 2, 3}, k.intact(t))
			for i, b := range k.sent {
				var p wire.Packet
				require.NoError(t, p.Decode(b))
				require.Equal(t, want[i], p.Payload)
			}
			require.Empty(t, l.tx.batch.refs)
		})
	}
}
