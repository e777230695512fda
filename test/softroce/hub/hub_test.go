package hub

import (
	"encoding/binary"
	"fmt"
	"net"
	"reflect"
	"slices"
	"testing"
	"time"
)

// wire is a connection in memory that keeps the bounds of frames.
func wire(t *testing.T, h *Hub, n int) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	if err := h.Attach(n, near); err != nil {
		t.Fatal(err)
	}
	return far
}

func addr(n int) []byte { return []byte{0x52, 0x54, 0, 0, 0, byte(n)} }

func frame(to, from []byte, n int) []byte {
	f := append(append([]byte{}, to...), from...)
	return binary.BigEndian.AppendUint32(append(f, 0x88, 0xb5), uint32(n))
}

func number(f []byte) int { return int(binary.BigEndian.Uint32(f[14:])) }

// receive returns the numbers of the frames that arrive until none comes for a while.
func receive(t *testing.T, c net.Conn, quiet time.Duration) []int {
	t.Helper()
	var got []int
	buf := make([]byte, maxFrame)
	for {
		if err := c.SetReadDeadline(time.Now().Add(quiet)); err != nil {
			t.Fatal(err)
		}
		k, err := c.Read(buf)
		if err != nil {
			return got
		}
		got = append(got, number(buf[:k]))
	}
}

func send(t *testing.T, c net.Conn, to, from, count int) {
	t.Helper()
	for i := range count {
		if _, err := c.Write(frame(addr(to), addr(from), i)); err != nil {
			t.Error(err)
			return
		}
	}
}

func upTo(n int) []int {
	var s []int
	for i := range n {
		s = append(s, i)
	}
	return s
}

// pair is a hub whose two ports have made their addresses known.
func pair(t *testing.T, seed uint64) (*Hub, net.Conn, net.Conn) {
	t.Helper()
	h := New(Config{Ports: 2, Seed: seed})
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h, wire(t, h, 0), wire(t, h, 1)
}

func TestSwitching(t *testing.T) {
	h := New(Config{Ports: 3})
	defer h.Close()
	a, b, c := wire(t, h, 0), wire(t, h, 1), wire(t, h, 2)
	broadcast := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for i, step := range []struct {
		conn     net.Conn
		frame    []byte
		at       []net.Conn
		notAt    net.Conn
		whatever string
	}{
		{a, frame(broadcast, addr(0), 1), []net.Conn{b, c}, nil, "broadcast"},
		{b, frame(addr(2), addr(1), 2), []net.Conn{a, c}, nil, "an address nobody has used yet"},
		{b, frame(addr(0), addr(1), 3), []net.Conn{a}, c, "a known address"},
	} {
		if _, err := step.conn.Write(step.frame); err != nil {
			t.Fatal(err)
		}
		for _, at := range step.at {
			if got := receive(t, at, 30*time.Millisecond); !slices.Equal(got, []int{i + 1}) {
				t.Errorf("%s: got %v", step.whatever, got)
			}
		}
		if step.notAt != nil {
			if got := receive(t, step.notAt, 10*time.Millisecond); got != nil {
				t.Errorf("%s: the wrong port got %v", step.whatever, got)
			}
		}
	}
}

func TestLargeFrames(t *testing.T) {
	_, a, b := pair(t, 0)
	big := append(frame(addr(1), addr(0), 7), make([]byte, 9014)...)
	go func() { _, _ = a.Write(big) }()
	buf := make([]byte, maxFrame)
	if n, err := b.Read(buf); err != nil || n != len(big) {
		t.Errorf("%d bytes of %d, %v", n, len(big), err)
	}
}

func TestOneDirection(t *testing.T) {
	h, a, b := pair(t, 0)
	if err := h.SetLink(0, 1, Faults{Down: true}); err != nil {
		t.Fatal(err)
	}
	send(t, a, 1, 0, 5)
	if got := receive(t, b, 20*time.Millisecond); got != nil {
		t.Errorf("through a cut: %v", got)
	}
	send(t, b, 0, 1, 5)
	if got := receive(t, a, 20*time.Millisecond); !slices.Equal(got, upTo(5)) {
		t.Errorf("the other way: %v", got)
	}
	if s, err := h.Stats(0, 1); err != nil || s.Sent != 5 || s.Lost != 5 || s.Delivered != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestPartitionAndHeal(t *testing.T) {
	h, a, b := pair(t, 0)
	for _, cut := range []bool{true, false} {
		if cut {
			_ = h.Partition(0, 1)
		} else {
			_ = h.Heal(0, 1)
		}
		send(t, a, 1, 0, 3)
		send(t, b, 0, 1, 3)
		at0, at1 := receive(t, a, 20*time.Millisecond), receive(t, b, 20*time.Millisecond)
		if (at0 == nil) != cut || (at1 == nil) != cut {
			t.Errorf("cut=%v: %v, %v", cut, at0, at1)
		}
	}
	if err := h.Partition(0, 2); err == nil {
		t.Error("a port that is not there was cut off")
	}
}

func TestDelayKeepsOrder(t *testing.T) {
	h, a, b := pair(t, 0)
	const delay = 30 * time.Millisecond
	if err := h.SetLink(0, 1, Faults{Delay: delay}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	send(t, a, 1, 0, 50)
	if _, err := b.Read(make([]byte, maxFrame)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d < delay {
		t.Errorf("the first frame took %v", d)
	}
	if got := receive(t, b, 100*time.Millisecond); !slices.Equal(got, upTo(50)[1:]) {
		t.Errorf("got %v", got)
	}
}

func TestReorder(t *testing.T) {
	h, a, b := pair(t, 3)
	if err := h.SetLink(0, 1, Faults{Reorder: 0.3}); err != nil {
		t.Fatal(err)
	}
	send(t, a, 1, 0, 100)
	got := receive(t, b, 60*time.Millisecond)
	if slices.IsSorted(got) {
		t.Error("in order")
	}
	slices.Sort(got)
	if !slices.Equal(got, upTo(100)) {
		t.Errorf("lost or doubled: %v", got)
	}
}

// The same seed does the same to the same frames, another one does not.
func TestSeed(t *testing.T) {
	run := func(seed uint64) []int {
		h, a, b := pair(t, seed)
		if err := h.SetAll(Faults{Loss: 0.2, Duplicate: 0.2}); err != nil {
			t.Fatal(err)
		}
		send(t, a, 1, 0, 200)
		return receive(t, b, 60*time.Millisecond)
	}
	first, again, other := run(1), run(1), run(2)
	if !slices.Equal(first, again) {
		t.Errorf("the same seed:\n%v\n%v", first, again)
	}
	if slices.Equal(first, other) {
		t.Error("another seed made no difference")
	}
	if n := len(slices.Compact(slices.Clone(first))); n < 130 || n > 185 {
		t.Errorf("%d of 200 arrived at a loss of 20 %%", n)
	}
}

func TestReattach(t *testing.T) {
	h, a, b := pair(t, 0)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	send(t, a, 1, 0, 3) // into the void
	for {               // a Write returns before the hub has switched the frame
		if s, err := h.Stats(0, 1); err != nil || s.Sent == 3 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	b = wire(t, h, 1)
	send(t, a, 1, 0, 2)
	if got := receive(t, b, 20*time.Millisecond); !slices.Equal(got, upTo(2)) {
		t.Errorf("got %v", got)
	}
}

func TestFaultsAreChecked(t *testing.T) {
	h := New(Config{Ports: 2})
	defer h.Close()
	for _, f := range []Faults{{Loss: 1.1}, {Loss: -0.1}, {Duplicate: 2}, {Reorder: 2}, {Delay: -1}, {Jitter: -1}} {
		if err := h.SetLink(0, 1, f); err == nil {
			t.Errorf("%+v was accepted", f)
		}
	}
}

func TestRoCE(t *testing.T) {
	v4 := make([]byte, 14+20+8)
	v4[12], v4[13], v4[14], v4[14+9] = 0x08, 0x00, 0x45, 17
	binary.BigEndian.PutUint16(v4[14+20+2:], 4791)
	v6 := make([]byte, 14+40+8)
	v6[12], v6[13], v6[14+6] = 0x86, 0xdd, 17
	binary.BigEndian.PutUint16(v6[14+40+2:], 4791)
	other := slices.Clone(v4)
	binary.BigEndian.PutUint16(other[14+20+2:], 53)
	arp := frame(addr(0), addr(1), 0)
	for i, want := range []struct {
		frame []byte
		roce  bool
	}{{v4, true}, {v6, true}, {other, false}, {arp, false}, {nil, false}, {v4[:30], false}, {v6[:50], false}} {
		if got := RoCE(want.frame); got != want.roce {
			t.Errorf("frame %d: %v", i, got)
		}
	}
}

// Every field of Faults must do something to a frame that it can affect.
func TestEveryFaultCounts(t *testing.T) {
	set := map[string]Faults{
		"Loss": {Loss: 1}, "Duplicate": {Duplicate: 1}, "Reorder": {Reorder: 1}, "Down": {Down: true},
		"Delay": {Delay: time.Hour}, "Jitter": {Jitter: time.Hour},
		"Match": {Loss: 1, Match: func([]byte) bool { return false }},
	}
	for i := range reflect.TypeFor[Faults]().NumField() {
		f := reflect.TypeFor[Faults]().Field(i)
		faults, ok := set[f.Name]
		if !ok {
			t.Errorf("%s is not tested here", f.Name)
			continue
		}
		h := New(Config{Ports: 2})
		v := faults.decide(h.links[0][1].rng, frame(addr(0), addr(1), 0))
		clean := fmt.Sprint(v) == fmt.Sprint(verdict{copies: []time.Duration{0}})
		if clean != (f.Name == "Match") {
			t.Errorf("%s: %+v", f.Name, v)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}
