package suite_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rsocket"
)

func init() {
	register("K01", "rsocket stream", func(t *testing.T, e *env) {
		t.Run("nettest", func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				r := newRS(t, e.ip4)
				a, b, err := r.pipe()
				if err != nil {
					return nil, nil, nil, err
				}
				return a, b, func() { a.Close(); b.Close(); r.l.Close() }, nil
			})
		})
		t.Run("half close", func(t *testing.T) { rsHalfClose(t, e.ip4) })
		t.Run("raw calls", func(t *testing.T) { rsRaw(t, e.ip4) })
		t.Run("close wakes", func(t *testing.T) { rsCloseWakes(t, e.ip4) })
		t.Run("close with a deaf peer", func(t *testing.T) { rsDeafPeer(t, e.ip4) })
		t.Run("C peer", func(t *testing.T) { rsCPeer(t, e.ip4) })
		t.Run("C peer killed", func(t *testing.T) { rsCPeerKilled(t, e.ip4) })
		t.Run("refused", func(t *testing.T) { rsRefused(t, e.ip4) })
		t.Run("idle connections hold no threads", func(t *testing.T) { rsThreads(t, e.ip4) })
		if e.ip6.IsValid() {
			t.Run("IPv6", func(t *testing.T) { rsHalfClose(t, e.ip6) })
		}
	})
	register("K02", "rsocket dgram and iomap", func(t *testing.T, e *env) {
		t.Run("iomap", func(t *testing.T) { rsIOMap(t, e.ip4) })
		t.Run("dgram", func(t *testing.T) { rsDatagram(t, e) })
	})
}

const rsTime = 60 * time.Second

// rsNet is a listener and what is accepted from it.
type rsNet struct {
	t *testing.T
	l *rsocket.Listener
	d rsocket.Dialer
}

func newRS(t *testing.T, ip netip.Addr) *rsNet {
	t.Helper()
	l, err := rsocket.Listen(t.Context(), "tcp", netip.AddrPortFrom(ip, 0).String())
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return &rsNet{t: t, l: l}
}

func (r *rsNet) pipe() (a, b *rsocket.Conn, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), rsTime)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		a, err = r.d.Dial(ctx, "tcp", r.l.Addr().String())
		if err != nil {
			r.l.SetDeadline(time.Unix(1, 0))
		}
	}()
	r.l.SetDeadline(time.Now().Add(rsTime))
	b, aerr := r.l.AcceptConn()
	<-done
	return a, b, errors.Join(err, aerr)
}

// open is pipe for a test, with a deadline on both ends.
func (r *rsNet) open() (a, b *rsocket.Conn) {
	r.t.Helper()
	a, b, err := r.pipe()
	require.NoError(r.t, err)
	for _, c := range []*rsocket.Conn{a, b} {
		r.t.Cleanup(func() { c.Close() })
		require.NoError(r.t, c.SetDeadline(time.Now().Add(rsTime)))
	}
	return a, b
}

// What one end wrote before CloseWrite arrives whole and ends; the other half lives.
func rsHalfClose(t *testing.T, ip netip.Addr) {
	a, b := newRS(t, ip).open()
	require.Equal(t, a.LocalAddr().String(), b.RemoteAddr().String())
	require.Equal(t, b.LocalAddr().String(), a.RemoteAddr().String())
	data := make([]byte, 400_000)
	fill(data, 3)
	want := sha256.Sum256(data)
	go func() {
		if _, err := a.Write(data); err == nil {
			a.CloseWrite()
		}
	}()
	got, err := io.ReadAll(b)
	require.NoError(t, err)
	require.Equal(t, want, sha256.Sum256(got))
	_, err = a.Write([]byte("more"))
	require.ErrorIs(t, err, syscall.EPIPE)
	_, err = b.Write([]byte("the other half"))
	require.NoError(t, err)
	require.NoError(t, b.Close())
	got, err = io.ReadAll(a)
	require.NoError(t, err)
	require.Equal(t, "the other half", string(got))
}

// rsAgain repeats a call of the raw layer until it is not EAGAIN.
func rsAgain(t *testing.T, s *rsocket.Socket, events int, try func() (int, error)) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rsTime)
	defer cancel()
	for {
		n, err := try()
		if err != syscall.EAGAIN {
			require.NoError(t, err)
			return n
		}
		_, err = s.Wait(ctx, events)
		require.NoError(t, err)
	}
}

func rsRaw(t *testing.T, ip netip.Addr) {
	ca, cb := newRS(t, ip).open()
	a, b := ca.Socket(), cb.Socket()
	buf := make([]byte, 16)
	sent := func(n int, err error) { t.Helper(); require.NoError(t, err); require.Equal(t, 6, n) }
	sent(a.Write([]byte("rwrite")))
	require.Equal(t, 4, rsAgain(t, b, rsocket.In, func() (int, error) { return b.Recv(buf[:4], rsocket.MsgPeek) }))
	require.Equal(t, 6, rsAgain(t, b, rsocket.In, func() (int, error) { return b.Read(buf) }))
	require.Equal(t, "rwrite", string(buf[:6]))
	sent(a.WriteV([][]byte{[]byte("wri"), nil, []byte("tev")}))
	// One call receives into the first vector only.
	require.Equal(t, 2, rsAgain(t, b, rsocket.In, func() (int, error) { return b.ReadV([][]byte{buf[:2], buf[2:]}) }))
	require.Equal(t, 4, rsAgain(t, b, rsocket.In, func() (int, error) { return b.RecvMsg([][]byte{buf[2:]}, 0) }))
	require.Equal(t, "writev", string(buf[:6]))
	sent(a.SendMsg([][]byte{[]byte("sendms")}, 0))
	rsAgain(t, b, rsocket.In, func() (int, error) {
		n, from, err := b.RecvFrom(buf, 0)
		if err == nil {
			require.Equal(t, cb.RemoteAddr().String(), from.String())
		}
		return n, err
	})
	require.Equal(t, "sendms", string(buf[:6]))
	_, err := a.SendTo([]byte("x"), 0, netip.AddrPortFrom(ip, 1))
	require.ErrorIs(t, err, syscall.EISCONN)

	n, err := b.Read(buf)
	require.Equal(t, syscall.EAGAIN, err, "nothing to read: %d", n)
	fds := []rsocket.PollFD{{FD: int32(b.FD()), Events: rsocket.In | rsocket.Out}}
	n, err = rsocket.Poll(fds, time.Second)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.EqualValues(t, rsocket.Out, fds[0].Revents)
	// Twice: the library's own timeout spins for ever after the first expiry.
	for range 2 {
		fds[0].Events = rsocket.In
		n, err = rsocket.Poll(fds, 20*time.Millisecond)
		require.NoError(t, err)
		require.Zero(t, n)
		var rd rsocket.FDSet
		rd.Set(b.FD())
		n, err = rsocket.Select(b.FD()+1, &rd, nil, nil, 20*time.Millisecond)
		require.NoError(t, err)
		require.Zero(t, n)
		require.False(t, rd.Has(b.FD()))
	}
	sent(a.Send([]byte("select"), 0))
	var rd rsocket.FDSet
	rd.Set(b.FD())
	n, err = rsocket.Select(b.FD()+1, &rd, nil, nil, rsTime)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.True(t, rd.Has(b.FD()))

	fl, err := a.Fcntl(rsocket.FGetFl, 0)
	require.NoError(t, err)
	require.NotZero(t, fl&rsocket.ONonblock)
	_, err = a.Fcntl(rsocket.FSetFl, 0)
	require.ErrorIs(t, err, syscall.EINVAL)
	v, err := a.GetSockOptInt(rsocket.SolRDMA, rsocket.RDMASQSize)
	require.NoError(t, err)
	require.Positive(t, v)
	require.ErrorIs(t, a.SetSockOptInt(rsocket.SolRDMA, rsocket.RDMASQSize, 10), syscall.EINVAL, "after connect")
	require.NoError(t, a.SetSockOptInt(rsocket.SolTCP, 1, 1)) // TCP_NODELAY
	v, err = a.GetSockOptInt(rsocket.SolTCP, 1)
	require.NoError(t, err)
	require.Equal(t, 1, v)
	require.NoError(t, a.Err())
	require.NoError(t, a.Shutdown(rsocket.ShutWr))
	require.Equal(t, 6, rsAgain(t, b, rsocket.In, func() (int, error) { return b.Recv(buf, 0) }))
	require.Zero(t, rsAgain(t, b, rsocket.In, func() (int, error) { return b.Recv(buf, 0) }))
	require.NoError(t, a.Close())
	require.NoError(t, a.Close())
	_, err = a.Recv(buf, 0)
	require.ErrorIs(t, err, net.ErrClosed)
}

// Close ends Read, Write, Accept and Wait on other goroutines.
func rsCloseWakes(t *testing.T, ip netip.Addr) {
	r := newRS(t, ip)
	a, _ := r.open()
	var wg sync.WaitGroup
	errs := make([]error, 3)
	wg.Go(func() { _, errs[0] = a.Read(make([]byte, 1)) })
	wg.Go(func() { // nobody reads: it fills the window and waits
		for errs[1] == nil {
			_, errs[1] = a.Write(make([]byte, 64<<10))
		}
	})
	wg.Go(func() {
		r.l.SetDeadline(time.Time{})
		_, errs[2] = r.l.Accept()
	})
	time.Sleep(200 * time.Millisecond) // most likely all three wait by now; they must end either way
	require.NoError(t, a.Close())
	require.NoError(t, r.l.Close())
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(rsTime):
		t.Fatal("Close left a call waiting")
	}
	for i, err := range errs {
		require.ErrorIs(t, err, net.ErrClosed, "call %d", i)
	}
}

// A peer whose receive queue is full takes no goodbye: Close gives up after the
// linger time, and what the peer's device had taken is there when the peer looks.
// The peer's queue has as many places as the sender has credits, and messages of
// the protocol itself take some, so the last few sends are lost.
func rsDeafPeer(t *testing.T, ip netip.Addr) {
	a, b := newRS(t, ip).open()
	n := 0
	for err := error(nil); err != syscall.EAGAIN; n++ {
		_, err = a.Socket().Send([]byte{byte(n)}, 0)
		if err != nil {
			require.Equal(t, syscall.EAGAIN, err)
			n--
		}
	}
	require.Greater(t, n, 100)
	a.Socket().SetLinger(300 * time.Millisecond)
	closed := make(chan error, 1)
	go func() { closed <- a.Close() }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(rsTime):
		t.Fatal("Close waits for a deaf peer")
	}
	got, err := io.ReadAll(b)
	require.NoError(t, err)
	require.LessOrEqual(t, len(got), n)
	require.Greater(t, len(got), n-8)
	for i, v := range got {
		require.Equal(t, byte(i), v)
	}
}

// rstream of rdmacm-utils sends 16 bytes and count*size more, and wants each
// part back; with -T v it checks what it gets.
func startRStream(t *testing.T, l *rsocket.Listener, size, count int) (*exec.Cmd, *bytes.Buffer) {
	path, err := exec.LookPath("rstream")
	require.NoError(t, err, "apt-get install rdmacm-utils")
	a := l.Addr().(*net.TCPAddr)
	ctx, cancel := context.WithTimeout(t.Context(), rsTime)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, path, "-s", a.IP.String(), "-p", strconv.Itoa(a.Port),
		"-S", strconv.Itoa(size), "-C", strconv.Itoa(count), "-T", "v", "-T", "a")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	return cmd, &out
}

func rsCPeer(t *testing.T, ip netip.Addr) {
	r := newRS(t, ip)
	cmd, out := startRStream(t, r.l, 3000, 100)
	r.l.SetDeadline(time.Now().Add(rsTime))
	c, err := r.l.Accept()
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(rsTime)))
	for _, n := range []int{16, 300_000} {
		b := make([]byte, n)
		_, err := io.ReadFull(c, b)
		require.NoError(t, err)
		_, err = c.Write(b)
		require.NoError(t, err)
	}
	_, err = c.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
	require.NoError(t, c.Close())
	require.NoError(t, cmd.Wait(), out.String())
	require.Contains(t, out.String(), "100", "rstream prints its result")
}

func rsCPeerKilled(t *testing.T, ip netip.Addr) {
	r := newRS(t, ip)
	cmd, _ := startRStream(t, r.l, 1000, 1_000_000)
	r.l.SetDeadline(time.Now().Add(rsTime))
	c, err := r.l.Accept()
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(rsTime)))
	b := make([]byte, 16)
	_, err = io.ReadFull(c, b)
	require.NoError(t, err)
	_, err = c.Write(b)
	require.NoError(t, err)
	_, err = io.ReadFull(c, make([]byte, 20_000))
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Kill())
	cmd.Wait()
	_, err = io.Copy(io.Discard, c)
	require.NoError(t, err, "the kernel of a killed peer ends its connections")
	for err == nil { // and a writer learns of it
		_, err = c.Write(b)
	}
	require.ErrorIs(t, err, syscall.EPIPE)
	require.NoError(t, c.Close())
}

func rsRefused(t *testing.T, ip netip.Addr) {
	r := newRS(t, ip)
	require.NoError(t, r.l.Close())
	ctx, cancel := context.WithTimeout(t.Context(), rsTime)
	defer cancel()
	_, err := rsocket.Dial(ctx, "tcp", r.l.Addr().String())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	gone, stop := context.WithCancel(t.Context())
	stop()
	_, err = rsocket.Dial(gone, "tcp", r.l.Addr().String())
	require.ErrorIs(t, err, context.Canceled)
}

func threads(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	return len(d)
}

// The number of threads does not follow the number of waiting connections.
func rsThreads(t *testing.T, ip netip.Addr) {
	n := 24
	if v, err := strconv.Atoi(os.Getenv("ZRDMA_RSOCKET_CONNS")); err == nil {
		n = v
	}
	r := newRS(t, ip)
	var wg sync.WaitGroup
	var conns []*rsocket.Conn
	idle := func(k int) {
		for range k {
			a, b := r.open()
			conns = append(conns, a, b)
			for _, c := range []*rsocket.Conn{a, b} {
				wg.Go(func() { c.Read(make([]byte, 1)) })
			}
		}
	}
	idle(2)
	time.Sleep(100 * time.Millisecond)
	few := threads(t)
	idle(n)
	time.Sleep(100 * time.Millisecond)
	many := threads(t)
	t.Logf("%d threads with 4 waiting ends, %d with %d", few, many, len(conns))
	// Go may start some threads of its own; one for every waiter would be 2n more.
	require.LessOrEqual(t, many, few+8)
	for _, c := range conns {
		require.NoError(t, c.Close())
	}
	wg.Wait()
}

func rsIOMap(t *testing.T, ip netip.Addr) {
	size := func(s *rsocket.Socket) error { return s.SetSockOptInt(rsocket.SolRDMA, rsocket.RDMAIOMapSize, 4) }
	r := newRS(t, ip)
	r.d.Control = size
	a, b := r.open()

	dst := make([]byte, 8192)
	off, err := b.Socket().IOMap(dst, rsocket.ProtWrite, 0, 1<<20)
	require.NoError(t, err)
	require.EqualValues(t, 1<<20, off)
	_, err = a.Socket().IOMap(make([]byte, 64), rsocket.ProtWrite, 0, 0)
	require.ErrorIs(t, err, syscall.ENOMEM, "the dialler takes mappings, the listener set none")
	n, err := a.Socket().IOWrite([]byte("early"), off, 0)
	require.NoError(t, err)
	require.Zero(t, n, "the mapping is not known before data sent after it")

	_, err = b.Write([]byte("mapped"))
	require.NoError(t, err)
	buf := make([]byte, 16)
	_, err = io.ReadFull(a, buf[:6])
	require.NoError(t, err)
	src := make([]byte, 5000)
	fill(src, 9)
	for done := 0; done < len(src); {
		done += rsAgain(t, a.Socket(), rsocket.Out, func() (int, error) {
			return a.Socket().IOWrite(src[done:], off+100+int64(done), 0)
		})
	}
	_, err = a.Write([]byte("written"))
	require.NoError(t, err)
	_, err = io.ReadFull(b, buf[:7])
	require.NoError(t, err)
	require.True(t, bytes.Equal(src, dst[100:5100]))
	require.Equal(t, make([]byte, 100), dst[:100])
	require.Equal(t, make([]byte, len(dst)-5100), dst[5100:])
	require.ErrorIs(t, b.Socket().IOUnmap(dst[:10]), syscall.EINVAL)
	require.NoError(t, b.Socket().IOUnmap(dst))
	// A mapping left open: Close takes it down, where the library's would spin.
	_, err = b.Socket().IOMap(dst, rsocket.ProtWrite, 0, -1)
	require.NoError(t, err)
	require.NoError(t, b.Close())
}

func rsDatagram(t *testing.T, e *env) {
	ip := e.ip4
	a, err := rsocket.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(ip, 0).String())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	b, err := rsocket.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(ip, 0).String())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })

	_, err = a.WriteTo(make([]byte, 4096), b.LocalAddr())
	require.ErrorIs(t, err, syscall.EMSGSIZE)
	_, err = a.Socket().Send([]byte("x"), 0)
	require.ErrorIs(t, err, syscall.EDESTADDRREQ)
	for _, err := range []error{
		a.Socket().Listen(1),
		func() error { _, err := a.Socket().SendMsg(nil, 0); return err }(),
		func() error { _, err := a.Socket().IOMap(make([]byte, 8), 0, 0, 0); return err }(),
	} {
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
	require.NoError(t, a.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
	_, _, err = a.ReadFrom(make([]byte, 8))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)

	_, err = a.WriteTo([]byte("datagram"), b.LocalAddr())
	port, perr := e.ctx.QueryPort(e.port)
	require.NoError(t, perr)
	if port.LinkLayer == verbs.LinkLayerEthernet {
		// librdmacm asks for an address handle without a global route, which no
		// Ethernet device makes, and reports the errno of its clean-up after it.
		_, aherr := e.pd.CreateAH(verbs.AHAttr{PortNum: e.port})
		require.ErrorIs(t, aherr, syscall.EINVAL)
		require.ErrorIs(t, err, syscall.ENOENT)
		require.ErrorContains(t, err, "RoCE")
		return
	}
	require.NoError(t, err)
	require.NoError(t, b.SetReadDeadline(time.Now().Add(rsTime)))
	buf := make([]byte, 64)
	n, from, err := b.ReadFrom(buf)
	require.NoError(t, err)
	require.Equal(t, "datagram", string(buf[:n]))
	require.Equal(t, a.LocalAddr().String(), from.String())
}
