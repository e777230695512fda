package rdmatest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

// exampleT stands for the *testing.T that a test has.
type exampleT struct{ cleanups []func() }

func (t *exampleT) Helper()                   {}
func (t *exampleT) Failed() bool              { return false }
func (t *exampleT) Log(args ...any)           { fmt.Println(args...) }
func (t *exampleT) Errorf(f string, a ...any) { fmt.Printf(f+"\n", a...) }
func (t *exampleT) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (t *exampleT) Context() context.Context  { return context.Background() }
func (t *exampleT) Cleanup(f func())          { t.cleanups = append(t.cleanups, f) }
func (t *exampleT) end() {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
}

// put is the code under test: it writes data to the memory of a peer and waits
// until it is there.
func put(ctx context.Context, c *rdmacm.Conn, data []byte, addr uint64, key verbs.RKey) error {
	mr, err := c.PD.RegMR(data, verbs.AccessLocalWrite)
	if err != nil {
		return err
	}
	defer mr.Close()
	_, err = c.QP.PostSend([]verbs.SendWR{{
		Opcode: verbs.WRRDMAWrite, Flags: verbs.SendSignaled, SGList: []verbs.SGE{mr.SGE(0, len(data))},
		RemoteAddr: addr, RKey: key,
	}})
	if err != nil {
		return err
	}
	var wc [1]verbs.WC
	if _, err := c.SendCQ.Wait(ctx, wc[:], verbs.SpinAdaptive); err != nil {
		return err
	}
	return verbs.WCErr(&wc[0])
}

// target registers n bytes on a connection for the peer to write to.
func target(t rdmatest.TB, c *rdmacm.Conn, n int) *verbs.MR {
	mr, err := c.PD.RegMR(make([]byte, n), verbs.AccessLocalWrite|verbs.AccessRemoteWrite)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { mr.Close() })
	return mr
}

// A network that loses, repeats and swaps packets: what is written arrives all
// the same.
func ExampleNetwork_SetFaults() {
	t := new(exampleT) // in a test: its *testing.T
	defer t.end()
	net := rdmatest.NewNetwork(t, 7)
	client, server := rdmatest.Connect(t, net.Device(t), net.Device(t), rdmacm.DialConfig{})
	mr := target(t, server, 256<<10)

	net.SetFaults(rdmatest.Faults{Drop: 0.02, Duplicate: 0.02, Reorder: 0.05})
	data := make([]byte, 256<<10)
	data[12345] = 42
	err := put(t.Context(), client, data, mr.Addr(), mr.RKey())
	fmt.Println(err, mr.Bytes()[12345])
	// Output: <nil> 42
}

// A peer that is cut off: the write ends, after the retries of the queue pair,
// with the error that the code under test must handle.
func ExampleNetwork_Partition() {
	t := new(exampleT) // in a test: its *testing.T
	defer t.end()
	net := rdmatest.NewNetwork(t, 7)
	a, b := net.Device(t), net.Device(t)
	client, server := rdmatest.Connect(t, a, b, rdmacm.DialConfig{Conn: rdmacm.ConnParam{RetryCount: 1}, AckTimeout: 12})
	mr := target(t, server, 4096)

	net.Partition(a, b)
	err := put(t.Context(), client, make([]byte, 4096), mr.Addr(), mr.RKey())
	var failed *verbs.CompletionError
	fmt.Println(errors.As(err, &failed) && failed.Status == verbs.WCRetryExcErr)
	// Output: true
}

// Listen and Dial, as the code under test calls them, on two devices.
func ExampleDevice_Dial() {
	t := new(exampleT) // in a test: its *testing.T
	defer t.end()
	net := rdmatest.NewNetwork(t, 1)
	server, client := net.Device(t), net.Device(t)
	l, err := server.Listen(t.Context(), 7471, rdmacm.ListenConfig{})
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept(t.Context())
		if err == nil {
			err = errors.Join(c.WaitDisconnected(t.Context()), c.Close())
		}
		served <- err
	}()
	c, err := client.Dial(t.Context(), l.Addr(), rdmacm.DialConfig{})
	if err != nil {
		t.Fatalf("%v", err)
	}
	fmt.Println("connected to", c.PeerAddr(), "from", c.LocalAddr().Addr())
	fmt.Println(c.Close(), <-served)
	// Output:
	// connected to 10.0.0.1:7471 from 10.0.0.2
	// <nil> <nil>
}

// The packet log: what was sent, and what the network did to it.
func ExampleNetwork_Log() {
	t := new(exampleT) // in a test: its *testing.T
	defer t.end()
	net := rdmatest.NewNetwork(t, 1)
	a, b := net.Device(t), net.Device(t)
	rdmatest.Connect(t, a, b, rdmacm.DialConfig{})
	p := net.Log()[0]
	fmt.Println(p.From, ">", p.To, p.Fate) // p.Text() is the packet itself
	// Output: 10.0.0.1 > 10.0.0.2 sent
}

// A test in virtual time: what waits for seconds costs none.
func TestPeerGone(t *testing.T) {
	rdmatest.Run(t, 42, func(t *testing.T, net *rdmatest.Network) {
		a, b := net.Device(t), net.Device(t)
		client, server := rdmatest.Connect(t, a, b, rdmacm.DialConfig{})
		mr := target(t, server, 4096)
		net.SetFaultsFrom(a, b, rdmatest.Faults{Delay: 20 * time.Millisecond, Drop: 0.1})
		if err := put(t.Context(), client, make([]byte, 4096), mr.Addr(), mr.RKey()); err != nil {
			t.Error(err)
		}
		net.Partition(a, b)
		if err := put(t.Context(), client, make([]byte, 4096), mr.Addr(), mr.RKey()); err == nil {
			t.Error("the peer is gone, and nobody noticed")
		}
	})
}
