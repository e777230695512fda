package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/examples/blockstore/block"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

// The test binary is the program when this is set.
const beProgram = "BLOCKSTORE_BE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(beProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// loopback is an address of this host that other tests do not take.
func loopback(n int) string {
	return fmt.Sprintf("127.%d.%d.%d", 130+os.Getpid()%60, os.Getpid()/60%256, n)
}

func program(ctx context.Context, addr string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, os.Args[0], args...)
	c.Env = append(os.Environ(), beProgram+"=1", "ZRDMA_DEVICE=soft:"+addr)
	return c
}

// server is a server in a process of its own.
type server struct {
	t         *testing.T
	dir, addr string
	cmd       *exec.Cmd
	said      string
	rest      chan string
}

func startServer(t *testing.T, dir, listen string) *server {
	s := &server{t: t, dir: dir, rest: make(chan string, 1)}
	host, _, err := net.SplitHostPort(listen)
	require.NoError(t, err)
	s.cmd = program(context.Background(), host, "serve", "--dir", dir, "--listen", listen)
	out, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	s.cmd.Stderr = t.Output()
	require.NoError(t, s.cmd.Start())
	t.Cleanup(s.kill)
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan(), "the server says nothing")
	s.said = lines.Text()
	_, at, ok := strings.Cut(s.said, " on ")
	require.True(t, ok, s.said)
	s.addr, _, _ = strings.Cut(at, ",")
	return s
}

// kill is kill -9.
func (s *server) kill() {
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

// stop asks the server to end, which it does well.
func (s *server) stop() {
	require.NoError(s.t, s.cmd.Process.Signal(os.Interrupt))
	require.NoError(s.t, s.cmd.Wait())
}

func TestProgram(t *testing.T) {
	s := startServer(t, t.TempDir(), loopback(1)+":0")
	run := func(in []byte, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		c := program(ctx, loopback(2), append(args, "--server", s.addr)...)
		var out, errOut bytes.Buffer
		c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(in), &out, &errOut
		if err := c.Run(); err != nil {
			return out.String(), errors.New(errOut.String())
		}
		return out.String(), nil
	}
	ok := func(in []byte, args ...string) string {
		t.Helper()
		out, err := run(in, args...)
		require.NoError(t, err, args)
		return out
	}
	big := make([]byte, 3<<20)
	block.Content(big, 7)
	ok(big, "put", "big")
	ok([]byte("small"), "put", "a/b c")
	require.Equal(t, string(big), ok(nil, "get", "big"))
	require.Equal(t, "small", ok(nil, "get", "a/b c"))
	require.Contains(t, ok(nil, "stat", "big"), "\t3145728\t")
	require.Len(t, strings.Split(strings.TrimSpace(ok(nil, "list")), "\n"), 2)
	ok([]byte("other"), "put", "a/b c")
	require.Equal(t, "other", ok(nil, "get", "a/b c"))
	ok(nil, "delete", "a/b c")
	for _, bad := range [][]string{{"get", "a/b c"}, {"stat", "a/b c"}, {"delete", "a/b c"}, {"put", "empty"}, {"put", strings.Repeat("k", block.MaxKey+1)},
		{"put", ""}, {"load", "--blocks", "0"}, {"load", "--max", "99999999"}, {"load", "--cancel", "1"}} {
		var in []byte
		if bad[len(bad)-1] != "empty" {
			in = []byte("data")
		}
		_, err := run(in, bad...)
		require.Error(t, err, bad)
		require.NotContains(t, err.Error(), "panic", bad)
		t.Logf("%.40q: %v", bad, strings.TrimSpace(err.Error()))
	}
	out := ok(nil, "load", "--blocks", "60", "--max", "300000", "--cancel", "0.3")
	require.Contains(t, out, "verified in")
	require.Contains(t, out, "leaked 0")
	s.stop()
	s = startServer(t, s.dir, loopback(1)+":0")
	require.Contains(t, s.said, "serving 61 blocks")
	require.Equal(t, string(big), ok(nil, "get", "big"))
}

func dialServer(t *testing.T, addr, from string) (block.Client, *qp.Device) {
	d, err := qp.Open(qp.DeviceConfig{Name: "soft:" + from, Pool: mr.PoolConfig{Canaries: true, Classes: []int{4096, 65536, 1 << 20}, RegionSize: 8 << 20, Limit: 64 << 20}})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := rpc.Dial(ctx, addr, rpc.Config{Device: d, DataQPs: 2, MaxBackoff: 200 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		require.NoError(t, d.Close())
	})
	return block.Client{Client: c, Patient: true}, d
}

// TestKill kills the server under load, as often as it takes, and starts it again:
// every block whose PUT was acknowledged is there and is what was put, and the
// clients go on by themselves.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, loopback(5)+":0")
	listen := s.addr
	c, d := dialServer(t, s.addr, loopback(6))
	type write struct {
		size int
		seed uint64
	}
	var mu sync.Mutex
	acked, tried := map[string]write{}, map[string][]write{}
	ctx, stop := context.WithTimeout(t.Context(), 60*time.Second)
	defer stop()
	over := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 6 {
		rng := rand.New(rand.NewPCG(4, uint64(w)))
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				key := fmt.Sprintf("w%d-%d", w, rng.IntN(40)) // some are written again
				x := write{1 + rng.IntN(200_000), rng.Uint64()}
				b, err := d.Pool().Get(ctx, x.size)
				if err != nil {
					t.Error(err)
					return
				}
				p, err := b.Bytes()
				if err != nil {
					t.Error(err)
					return
				}
				block.Content(p, x.seed)
				mu.Lock()
				tried[key] = append(tried[key], x)
				mu.Unlock()
				b, err = c.Put(ctx, key, b)
				if err != nil {
					if rpc.CodeOf(err) == rpc.Unavailable { // fate unknown, or memory not back: not acknowledged
						continue
					}
					t.Error(key, err)
					return
				}
				mu.Lock()
				acked[key], tried[key] = x, nil
				mu.Unlock()
				if err := b.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(5, 5))
	for range 3 {
		time.Sleep(time.Duration(300+rng.IntN(700)) * time.Millisecond)
		s.kill()
		killed := time.Now()
		time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
		started := time.Now()
		s = startServer(t, dir, listen)
		up := time.Now()
		r, err := c.Call(ctx, "block.usage", nil, rpc.WaitForServer(), rpc.Idempotent())
		require.NoError(t, err)
		r.Release()
		t.Logf("killed; %v later started, which took %v; calls succeed %v after that", started.Sub(killed).Round(time.Millisecond),
			up.Sub(started).Round(time.Millisecond), time.Since(up).Round(time.Millisecond))
	}
	close(over)
	wg.Wait()
	check := func() {
		seen := 0
		for key, x := range acked {
			in, err := c.Stat(ctx, key)
			require.NoError(t, err, "an acknowledged block is lost: %s", key)
			b, err := d.Pool().Get(ctx, int(in.Size))
			require.NoError(t, err)
			b, err = c.Get(ctx, key, b)
			require.NoError(t, err, key)
			p, err := b.Bytes()
			require.NoError(t, err)
			good := false
			for _, y := range append(tried[key], x) { // later ones may have been done
				if len(p) == y.size {
					want := make([]byte, y.size)
					block.Content(want, y.seed)
					good = good || bytes.Equal(want, p)
				}
			}
			require.True(t, good, "%s is of %d bytes that nobody put after the acknowledged %d", key, len(p), x.size)
			require.NoError(t, b.Release())
			seen++
		}
		t.Logf("%d acknowledged blocks are there", seen)
	}
	check()
	s.kill()
	s = startServer(t, dir, listen)
	check()
	st := c.Stats()
	t.Logf("%d calls, %d sent again, %d sessions", st.Calls, st.Replays, st.Sessions)
	require.GreaterOrEqual(t, st.Sessions, uint64(4))
	s.stop()
}
