package rsocket

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zrdma/zrdma/internal/ibv"
	"github.com/zrdma/zrdma/verbs"
)

func TestOpErr(t *testing.T) {
	for _, e := range []error{nil, syscall.EAGAIN, syscall.EINPROGRESS, ErrClosed} {
		if got := opErr("rsend", e); got != e {
			t.Errorf("%v became %v", e, got)
		}
	}
	err := opErr("rconnect", syscall.ECONNREFUSED)
	var v *verbs.Error
	if !errors.As(err, &v) || v.Verb != "rconnect" || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
	if !errors.Is(unsupported("rsendmsg", "x"), errors.ErrUnsupported) {
		t.Error("unsupported is not errors.ErrUnsupported")
	}
	if !errors.Is(ErrClosed, net.ErrClosed) {
		t.Error("ErrClosed is not net.ErrClosed")
	}
}

// Without a device, a driver or the library the error says what to do.
func TestNoDevice(t *testing.T) {
	s, err := New(AFInet, Stream)
	if err == nil {
		s.Close()
		return
	}
	var v *verbs.Error
	if !errors.As(err, &v) || v.Verb != "rsocket" {
		t.Fatalf("%#v", err)
	}
	if ibv.Loaded(true) == nil && !strings.Contains(err.Error(), "modprobe rdma_ucm") {
		t.Errorf("no advice in %q", err)
	}
	if _, err := Dial(context.Background(), "tcp4", "192.0.2.1:1"); err == nil {
		t.Error("Dial succeeded without a device")
	}
}

func TestCreateErrAdvises(t *testing.T) {
	if ibv.Loaded(true) != nil {
		t.Skip("librdmacm is not here: its absence is the advice")
	}
	for _, e := range []error{syscall.ENODEV, syscall.ENOENT, syscall.EACCES} {
		var v *verbs.Error
		if err := createErr(e); !errors.As(err, &v) || v.Hint == "" || !errors.Is(err, e) {
			t.Errorf("%v: no advice in %v", e, err)
		}
	}
	var v *verbs.Error
	if err := createErr(syscall.EMFILE); !errors.As(err, &v) || v.Hint != "" {
		t.Errorf("advice on what it does not know: %v", err)
	}
}

func TestResolve(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		network, addr, want string
	}{
		{"tcp", "127.0.0.1:80", "127.0.0.1:80"},
		{"tcp4", ":0", "0.0.0.0:0"},
		{"tcp6", ":0", "[::]:0"},
		{"tcp6", "127.0.0.1:80", ""},
		{"tcp", "127.0.0.1", ""},
		{"udp", "127.0.0.1:1", ""},
		{"tcp5", "127.0.0.1:1", ""},
	} {
		got, err := resolve(ctx, c.network, "tcp", c.addr)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s %s gave %v", c.network, c.addr, got)
			}
		} else if err != nil || len(got) != 1 || got[0].String() != c.want {
			t.Errorf("%s %s: %v, %v", c.network, c.addr, got, err)
		}
	}
}

func TestDeadline(t *testing.T) {
	d := newDeadline()
	if d.passed() {
		t.Fatal("a new deadline has passed")
	}
	d.set(time.Now().Add(-time.Second))
	if !d.passed() {
		t.Fatal("the past has not passed")
	}
	d.set(time.Time{})
	if d.passed() {
		t.Fatal("none has passed")
	}
	d.set(time.Now().Add(time.Hour))
	c := d.done()
	d.set(time.Now().Add(time.Millisecond))
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("a wait begun before the deadline moved forward did not end")
	}
	d.set(time.Now().Add(time.Hour))
	if d.passed() {
		t.Fatal("moving it back did not revive it")
	}
	d.set(time.Time{})
}

func TestMillis(t *testing.T) {
	for in, want := range map[time.Duration]int{-1: -1, 0: 0, 1: 1, time.Millisecond: 1, time.Second: 1000, 1<<63 - 1: 1<<31 - 1} {
		if got := millis(in); got != want {
			t.Errorf("millis(%d) = %d, want %d", in, got, want)
		}
	}
}
