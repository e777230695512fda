package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/perf"
)

// argsEnv makes this test binary the program: two ends need two processes, and a
// signal is for a whole one.
const argsEnv = "ZRDMA_CLI_ARGS"

func TestMain(m *testing.M) {
	if a := os.Getenv(argsEnv); a != "" {
		os.Exit(Main(strings.Split(a, "\x1f"), os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// program is zrdma in a process of its own.
type program struct {
	cmd  *exec.Cmd
	mu   sync.Mutex
	b    bytes.Buffer // guarded by mu: what it printed
	done chan struct{}
	code int // once done
}

func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

func (p *program) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.String()
}

const patience = time.Minute

// begin starts zrdma with its output, or where stdout says.
func begin(t *testing.T, stdout *os.File, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	p := &program{cmd: exec.CommandContext(ctx, "/proc/self/exe"), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), argsEnv+"="+strings.Join(args, "\x1f"))
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		p.code = p.cmd.ProcessState.ExitCode()
		close(p.done)
	}()
	t.Cleanup(func() {
		cancel()
		<-p.done
	})
	return p
}

// end waits for the program and returns its code.
func (p *program) end() int {
	<-p.done
	return p.code
}

func (p *program) says(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(p.String(), text) }, patience, 5*time.Millisecond, "%q in %s", text, p)
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// serveBench starts a server on 127.8.N.1; what is returned are the flags of a
// client on 127.8.N.2.
func serveBench(t *testing.T, n string, more ...string) (*program, []string) {
	t.Helper()
	port := freePort(t)
	s := begin(t, nil, append([]string{"bench", "--serve", "-d", "soft:127.8." + n + ".1", "-p", port}, more...)...)
	s.says(t, "serving on TCP port "+port)
	return s, []string{"bench", "127.8." + n + ".1", "-d", "soft:127.8." + n + ".2", "-p", port, "--warmup", "0"}
}

func with(a []string, b ...string) []string { return append(append([]string{}, a...), b...) }

func readJSON(t *testing.T, name string) *perf.Report {
	t.Helper()
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	r, err := perf.ReadReport(f)
	require.NoError(t, err)
	return r
}

func TestBenchTwoProcesses(t *testing.T) {
	s, client := serveBench(t, "1")
	dir := t.TempDir()
	js, cs := filepath.Join(dir, "a.json"), filepath.Join(dir, "a.csv")
	require.NoError(t, os.WriteFile(js, []byte(strings.Repeat("old", 100_000)), 0o644))
	c := begin(t, nil, with(client, "--op", "all", "--mode", "latency,bandwidth", "--sizes", "3000", "-n", "20", "--json", js, "--csv", cs)...)
	require.Equal(t, ExitOK, c.end(), c)
	require.Contains(t, c.String(), "is a stand-in")
	r := readJSON(t, js)
	require.Equal(t, "complete", r.Ended)
	require.Len(t, r.Results, 2*len(perf.Ops))
	require.True(t, r.Client.StandIn)
	require.Equal(t, "soft:127.8.1.1", r.Server.Device)
	b, err := os.ReadFile(cs)
	require.NoError(t, err)
	require.Equal(t, 1+2*len(perf.Ops), bytes.Count(b, []byte("\n")))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2, "no temporary files are left")

	c = begin(t, nil, with(client, "--format", "json", "-n", "5", "--repeat", "2")...)
	require.Equal(t, ExitOK, c.end(), c)
	var out perf.Report
	require.NoError(t, json.Unmarshal([]byte(c.String()), &out))
	require.Len(t, out.Results[0].Samples, 2)
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGINT))
	require.Equal(t, ExitOK, s.end(), s)
	require.Contains(t, s.String(), "14 measurements, the last rpc bandwidth 3000 B")
}

// What is measured goes on until somebody ends it: Ctrl-C, or the peer's death.
// What was measured by then is printed and kept.
func TestBenchEndsEarly(t *testing.T) {
	_, client := serveBench(t, "2")
	name := filepath.Join(t.TempDir(), "a.json")
	run := with(client, "--sizes", "64,128", "-D", "50ms", "--json", name, "--repeat", "10000")
	c := begin(t, nil, run...)
	time.Sleep(time.Second)
	require.NoError(t, c.cmd.Process.Signal(os.Interrupt))
	require.Equal(t, ExitInterrupted, c.end(), c)
	r := readJSON(t, name)
	require.Equal(t, "interrupted", r.Ended)
	require.Len(t, r.Results, 1)
	require.NotEmpty(t, r.Results[0].Samples)
	require.Contains(t, c.String(), "zrdma bench: interrupted")
	require.Regexp(t, `write +bandwidth +64 B`, c.String())
}

func TestBenchPeerDies(t *testing.T) {
	s, client := serveBench(t, "3")
	name := filepath.Join(t.TempDir(), "a.json")
	c := begin(t, nil, with(client, "--sizes", "64", "-D", "1h", "--json", name)...)
	time.Sleep(time.Second)
	require.NoError(t, s.cmd.Process.Kill())
	require.Equal(t, ExitFailed, c.end(), c)
	require.Contains(t, c.String(), "the peer closed the connection")
	r := readJSON(t, name)
	require.Equal(t, "failed", r.Ended)
	require.Contains(t, r.Error, "the peer closed the connection")
	require.Len(t, r.Results, 1)
	require.Positive(t, r.Results[0].Samples[0].Messages)
	require.NotEmpty(t, r.Results[0].Samples[0].Partial)
}

func TestBenchFullDisk(t *testing.T) {
	_, client := serveBench(t, "4")
	c := begin(t, nil, with(client, "-n", "5", "--json", "/dev/full")...)
	require.Equal(t, ExitReport, c.end(), c)
	require.Contains(t, c.String(), "/dev/full: no space left on device")
	require.Contains(t, c.String(), `"schema": "zrdma-bench/1"`, "the report is printed instead")

	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	require.NoError(t, err)
	defer full.Close()
	for _, format := range []string{"table", "json", "csv"} {
		c = begin(t, full, with(client, "-n", "5", "--format", format)...)
		require.Equal(t, ExitReport, c.end(), c)
		require.Contains(t, c.String(), "no space left on device")
		require.Regexp(t, `write +bandwidth +64 KiB`, c.String(), "the results are on the other stream")
	}
	require.Equal(t, ExitReport, begin(t, full, "bench", "--serve", "-p", freePort(t), "-d", "soft:127.8.4.3").end())
	require.Equal(t, ExitReport, begin(t, full, "ping", "--loopback", "-c", "3", "-d", "soft:127.8.4.4").end())

	c = begin(t, nil, with(client, "--json", "/no/such/folder/a.json")...)
	require.Equal(t, ExitReport, c.end(), c)
	require.Contains(t, c.String(), "cannot be written")
}

func TestBenchMismatch(t *testing.T) {
	_, client := serveBench(t, "5", "--op", "read", "--depth", "16")
	c := begin(t, nil, with(client, "-n", "5")...)
	require.Equal(t, ExitMismatch, c.end(), c)
	require.Contains(t, c.String(), "the two ends have different settings: --op is read on the server and write on the client; --depth is 16 on the server and 128 on the client")
	require.Equal(t, ExitOK, begin(t, nil, with(client, "-n", "5", "--op", "read", "-t", "16")...).end())

	// A second client at the same time; it can wait for its turn.
	// The first waits too: the server may not have noticed yet that the one before is gone.
	first := begin(t, nil, with(client, "-D", "1h", "--op", "read", "-t", "16", "--retry", "30s")...)
	var second *program
	require.Eventually(t, func() bool {
		second = begin(t, nil, with(client, "-n", "5", "--op", "read", "-t", "16", "-d", "soft:127.8.5.5")...)
		return second.end() == ExitMismatch
	}, patience, 10*time.Millisecond)
	require.Contains(t, second.String(), "busy with 127.0.0.1:")
	third := begin(t, nil, with(client, "-n", "5", "--op", "read", "-t", "16", "--retry", "30s", "-d", "soft:127.8.5.3")...)
	require.NoError(t, first.cmd.Process.Signal(os.Interrupt))
	require.Equal(t, ExitInterrupted, first.end(), first)
	require.Equal(t, ExitOK, third.end(), third)

	// perftest, by what it says first; and ping's server.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("6.11\x00\x00\x00\x00"))
			conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	c = begin(t, nil, "bench", "127.0.0.1", "-d", "soft:127.8.5.4", "-p", port)
	require.Equal(t, ExitMismatch, c.end(), c)
	require.Contains(t, c.String(), "this looks like perftest")
	c = begin(t, nil, "ping", "127.0.0.1", "-d", "soft:127.8.5.4", "-p", port)
	require.Equal(t, ExitMismatch, c.end(), c)
	c = begin(t, nil, "bench", "127.0.0.1", "-d", "soft:127.8.5.4", "-p", freePort(t))
	require.Equal(t, ExitFailed, c.end(), c)
	require.Contains(t, c.String(), "zrdma bench: exchange: ")
	require.Contains(t, c.String(), "is `zrdma bench --serve` running there")
}

func TestPingTwoProcesses(t *testing.T) {
	port := freePort(t)
	s := begin(t, nil, "ping", "--serve", "-d", "soft:127.8.6.1", "-p", port)
	s.says(t, "answering on TCP port "+port)
	s.says(t, "connections on port "+port+" of rdma_cm")
	s.says(t, "calls on port ")
	client := []string{"ping", "127.8.6.1", "-d", "soft:127.8.6.2", "-p", port, "-i", "0", "-c", "3"}
	for _, more := range [][]string{nil, {"--transport", "ud"}, {"--cm"}, {"--cm", "-t", "ud"}, {"--rpc"}, {"--poll"}} {
		c := begin(t, nil, with(client, more...)...)
		require.Equal(t, ExitOK, c.end(), "%v: %s", more, c)
		require.Contains(t, c.String(), "3 sent, 3 received, 0% lost")
		require.Equal(t, 3, strings.Count(c.String(), "64 bytes: seq="), c)
	}
	c := begin(t, nil, with(client, "--size", "1,4k,100000", "--quiet")...)
	require.Equal(t, ExitOK, c.end(), c)
	require.Equal(t, 3, strings.Count(c.String(), "3 sent, 3 received"))
	require.Contains(t, c.String(), "PING 127.8.6.1, 100000 bytes")
	c = begin(t, nil, with(client, "--mtu")...)
	require.Equal(t, ExitOK, c.end(), c)
	require.Contains(t, c.String(), "path MTU 4096")
	c = begin(t, nil, "ping", "127.8.6.1", "-d", "soft:127.8.6.2", "-p", port, "--flood", "-w", "0.3")
	require.Equal(t, ExitOK, c.end(), c)
	require.Contains(t, c.String(), ".\b \b.\b \b")
	require.Contains(t, c.String(), " 0% lost")
	c = begin(t, nil, "ping", "127.8.6.1", "-d", "soft:127.8.6.2", "-p", port, "-i", "1000")
	c.says(t, "seq=1 ")
	require.NoError(t, c.cmd.Process.Signal(os.Interrupt))
	require.Equal(t, ExitOK, c.end(), c)
	require.Contains(t, c.String(), "1 sent, 1 received")

	// Datagrams are lost when the server is stopped; a connection's peer is missed.
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGSTOP))
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGCONT))
	c = begin(t, nil, "ping", "127.8.6.1", "-d", "soft:127.8.6.2", "-p", port, "-i", "0.02", "-t", "ud", "-W", "0.1")
	c.says(t, "seq=2 ")
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGSTOP))
	c.says(t, "lost: nothing came back within 100ms")
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGCONT))
	require.NoError(t, c.cmd.Process.Signal(os.Interrupt))
	require.Equal(t, ExitFailed, c.end(), c)
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
	require.Equal(t, ExitOK, s.end(), s)
}
