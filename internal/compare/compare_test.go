package compare

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/report"
)

// logged keeps what a server says.
type logged struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// serve starts a server in this process and returns its address, and what ends it.
func serve(t *testing.T, s *Server) (addr string, stop func(), log *logged) {
	t.Helper()
	log = &logged{}
	s.Log = func(format string, a ...any) {
		log.mu.Lock()
		defer log.mu.Unlock()
		log.text.WriteString(strings.TrimSpace(format) + "\n")
		for _, x := range a {
			if err, ok := x.(error); ok {
				log.text.WriteString(err.Error() + "\n")
			}
		}
	}
	s.Device = SoftDevice
	l, err := Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return l.Addr().String(), stop, log
}

func config(addr string) Config {
	return Config{Addr: addr, Job: small(), Rounds: 2, Device: SoftDevice}
}

// Every way moves every block, from memory and from a file, and says what it cost.
func TestEveryWay(t *testing.T) {
	for _, source := range []string{Memory, File} {
		t.Run(source, func(t *testing.T) {
			dir := t.TempDir()
			addr, _, _ := serve(t, &Server{Dir: dir})
			cfg := config(addr)
			cfg.Job.Source = source
			r, err := Run(t.Context(), cfg)
			require.NoError(t, err)
			require.Len(t, r.Ways, len(ways()))
			for _, w := range r.Ways {
				if w.Name == "dpu" {
					require.Contains(t, w.Cannot, "no agent configured")
					continue
				}
				if _, _, err := memoryFile("x"); w.Cannot != "" && (w.Name == "io_uring" || err != nil) {
					t.Logf("%s: %s", w.Name, w.Cannot) // io_uring is often switched off
					continue
				}
				require.Empty(t, w.Cannot, w.Name)
				require.Len(t, w.Runs, 2, w.Name)
				for _, x := range w.Runs {
					require.EqualValues(t, 49, x.Blocks, w.Name)
					require.EqualValues(t, 49*cfg.Job.Block, x.Bytes, w.Name)
					require.Positive(t, x.Latency.P50)
					require.LessOrEqual(t, x.Latency.P50, x.Latency.Max)
					require.Positive(t, x.Verify)
					require.NotNil(t, x.Sender.Calls)
					require.NotNil(t, x.Receiver.Calls)
					if w.Name != "rdma-read" { // the sender's program does nothing there
						require.GreaterOrEqual(t, *x.Sender.Calls, int64(1), w.Name)
					}
					if strings.HasPrefix(w.Name, "r") && w.Name != "read-write" {
						require.GreaterOrEqual(t, x.Receiver.Copied, x.Bytes, "the software device copies")
						require.Contains(t, strings.Join(x.Receiver.Notes, " "), "stand-in")
					} else {
						require.Zero(t, x.Sender.Copied+x.Receiver.Copied, w.Name)
					}
				}
			}
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, left)

			var text bytes.Buffer
			require.NoError(t, Print(&text, r))
			require.Contains(t, text.String(), "read-write")
			require.Contains(t, text.String(), "dpu cannot be done here: no agent configured")
			require.NoError(t, report.Write(&text, Document(r)))
			b, err := json.Marshal(r)
			require.NoError(t, err)
			require.Contains(t, string(b), `"format":"zrdma-compare"`)
		})
	}
}

// The smallest and odd shapes: one block, one under way, fewer blocks than that.
func TestShapes(t *testing.T) {
	addr, _, _ := serve(t, &Server{})
	for name, j := range map[string]Job{
		"one block":          {Bytes: 1, Block: 4096, Depth: 8, Data: 64 << 10, Source: Memory},
		"one at a time":      {Bytes: 1 << 20, Block: 64 << 10, Depth: 1, Data: 128 << 10, Source: Memory},
		"blocks over a pipe": {Bytes: 12 << 20, Block: 3 << 20, Depth: 2, Data: 9 << 20, Source: Memory},
		"many":               {Bytes: 4 << 20, Block: 4096, Depth: 64, Data: 1 << 20, Source: Memory},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Run(t.Context(), Config{Addr: addr, Job: j, Rounds: 1, Device: SoftDevice})
			require.NoError(t, err)
			for _, w := range r.Ways {
				if w.Cannot == "" {
					require.Len(t, w.Runs, 1, w.Name)
					require.Equal(t, j.Blocks(), w.Runs[0].Blocks, w.Name)
				}
			}
		})
	}
}

// A block that is not what it should be fails the run, whatever the way, and the
// others go on.
func TestDamageIsSeen(t *testing.T) {
	addr, _, _ := serve(t, &Server{tamper: func(s *source) { s.block(5)[777] ^= 1 }})
	r, err := Run(t.Context(), config(addr))
	require.ErrorIs(t, err, ErrCorrupt)
	for _, w := range r.Ways {
		if w.Cannot == "" {
			require.Contains(t, w.Failed, "block 5: CRC-32C", w.Name)
			require.Empty(t, w.Runs, w.Name)
		}
	}
}

// What was measured is kept when it is interrupted, in the middle of a run.
func TestInterrupt(t *testing.T) {
	addr, _, log := serve(t, &Server{})
	for _, name := range []string{"read-write", "io_uring", "mmap-zerocopy", "splice", "rdma-write", "rdma-read", "rpc"} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cfg := config(addr)
			cfg.Ways, cfg.Job.Bytes, cfg.Rounds = []string{name}, 1<<40, 1
			cfg.OnEvent = func(e Event) {
				if e.Round == 1 && e.Moved > 0 {
					cancel()
				}
			}
			start := time.Now()
			r, err := Run(ctx, cfg)
			require.NotNil(t, r, err)
			if r.Ways[0].Cannot != "" {
				t.Skip(r.Ways[0].Cannot)
			}
			require.ErrorIs(t, err, context.Canceled)
			require.True(t, r.Interrupted)
			require.Empty(t, r.Ways[0].Failed)
			require.Less(t, time.Since(start), time.Minute)
		})
	}
	// The server has got over it, and takes the next client.
	_, err := Run(t.Context(), Config{Addr: addr, Job: small(), Rounds: 1, Ways: []string{"read-write"}})
	require.NoError(t, err, log)
}

// The server goes away in the middle: soon known, and what there was is kept.
func TestServerLeaves(t *testing.T) {
	for _, name := range []string{"read-write", "rdma-read"} {
		t.Run(name, func(t *testing.T) {
			addr, stop, _ := serve(t, &Server{})
			cfg := config(addr)
			cfg.Ways, cfg.Rounds = []string{"sendfile", name}, 1
			cfg.Job.Bytes = 2 << 20
			var once sync.Once
			cfg.OnEvent = func(e Event) {
				if e.Way == name && e.Round == 1 || e.Run != nil && e.Round == 1 {
					once.Do(func() { go stop() })
				}
			}
			cfg.Job.Bytes = 2 << 20
			r, err := Run(t.Context(), cfg)
			if err == nil { // it was faster
				t.Skip("the run was over before the server left")
			}
			require.NotNil(t, r)
			require.Len(t, r.Ways[0].Runs, 1)
			require.False(t, r.Interrupted)
		})
	}
}

func TestOneClientAtATime(t *testing.T) {
	addr, _, _ := serve(t, &Server{})
	c := &client{addr: addr}
	_, err := c.dial(t.Context())
	require.NoError(t, err)
	defer c.ctl.c.Close()
	r, err := Run(t.Context(), config(addr))
	require.Nil(t, r)
	require.ErrorContains(t, err, "busy")
	require.ErrorContains(t, err, c.ctl.c.LocalAddr().String(), "who it is")
}

// Whoever speaks another protocol is told nothing and does no harm.
func TestStrangers(t *testing.T) {
	addr, _, log := serve(t, &Server{})
	for _, hello := range []string{"GET / HTTP/1.1\r\nHost: storage-7:18520\r\n\r\n", strings.Repeat("\x00", 100), "zrdmaCMPx" + strings.Repeat(" ", 40), string(preamble{kind: forData}.encode())} {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		_, err = c.Write([]byte(hello))
		require.NoError(t, err)
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := c.Read(make([]byte, 1))
		require.Zero(t, n)
		require.Error(t, err)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		c.Close()
	}
	require.Contains(t, log.String(), "does not speak the protocol")
	require.Contains(t, log.String(), "nobody waits for")

	l, err := net.Listen("tcp", "127.0.0.1:0") // perftest, say
	require.NoError(t, err)
	defer l.Close()
	answers := make(chan string, 3)
	go func() {
		for a := range answers {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(c, make([]byte, preambleLen+10))
			_, _ = c.Write([]byte(a))
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	for answer, want := range map[string]string{
		"0000:0000:000000:000000\n":                       "does not answer as zrdma compare --server does",
		`{"type":"go"}` + "\n":                            "it is no zrdma compare --server",
		`{"type":"hello","protocol":99,"host":{}}` + "\n": "the same version of zrdma at both ends",
	} {
		answers <- answer
		_, err := Run(t.Context(), config(l.Addr().String()))
		require.ErrorContains(t, err, want)
	}
	close(answers)
	require.NoError(t, l.Close())
	_, err = Run(t.Context(), config(l.Addr().String()))
	require.ErrorContains(t, err, "is `zrdma compare --server` running there")
}

// What the server refuses is said in its words.
func TestServerRefuses(t *testing.T) {
	addr, _, _ := serve(t, &Server{MaxData: 512 << 10, Dir: filepath.Join(t.TempDir(), "none")})
	r, err := Run(t.Context(), config(addr))
	require.NoError(t, err)
	require.Contains(t, r.Ways[0].Cannot, "server: it keeps 512 KiB of blocks at most, not 1 MiB; --max-data")
	cfg := config(addr)
	cfg.Job.Data, cfg.Job.Source = 512<<10, File
	r, err = Run(t.Context(), cfg)
	require.NoError(t, err)
	require.Contains(t, r.Ways[0].Cannot, "no such file or directory")
	_, err = Run(t.Context(), Config{Addr: addr, Job: small(), Ways: []string{"pigeon"}})
	require.ErrorContains(t, err, `no way "pigeon"; there are read-write, io_uring`)
}
