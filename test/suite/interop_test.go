package suite_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// goTool is a program of this repository. They are built before, for a VM has
// no place to build.
func goTool(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("ZRDMA_BIN_DIR")
	require.NotEmpty(t, dir, "ZRDMA_BIN_DIR must name the folder of the built programs: `make bin` fills bin/")
	p, err := filepath.Abs(filepath.Join(dir, name))
	require.NoError(t, err)
	_, err = os.Stat(p)
	require.NoError(t, err, "%s is missing in ZRDMA_BIN_DIR: `make bin` builds it", name)
	return p
}

// cTool is a program of rdma-core.
func cTool(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	require.NoError(t, err, "%s is needed: apt-get install ibverbs-utils rdmacm-utils", name)
	return p
}

// toolLimit is for a program that serves several subtests.
const toolLimit = 3 * time.Minute

// toolOutput is read while the program writes it.
type toolOutput struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (o *toolOutput) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *toolOutput) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// tool is a running program; it is killed at the end of the test.
type tool struct {
	name string
	cmd  *exec.Cmd
	out  toolOutput
	done chan error
}

func startTool(t *testing.T, argv ...string) *tool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), toolLimit)
	p := &tool{name: filepath.Base(argv[0]), cmd: exec.CommandContext(ctx, argv[0], argv[1:]...), done: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	require.NoError(t, p.cmd.Start())
	ended := make(chan struct{})
	go func() {
		p.done <- p.cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return p
}

// wait requires the program's success and returns what it printed.
func (p *tool) wait(t *testing.T) string {
	t.Helper()
	err := <-p.done
	require.NoError(t, err, "%v printed:\n%s", p.cmd.Args, p.out.String())
	return p.out.String()
}

// freePort is a TCP port that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	require.NoError(t, err)
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// listening waits until a program has its port open. Connecting would use up
// the one connection that a ping-pong server takes, so it asks the kernel.
func (p *tool) listening(t *testing.T, port string) {
	t.Helper()
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	want := fmt.Sprintf(":%04X ", n)
	for end := time.Now().Add(toolLimit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-p.done:
			t.Fatalf("%v ended: %v\n%s", p.cmd.Args, err, p.out.String())
		default:
		}
		for _, f := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
			b, _ := os.ReadFile(f) // no tcp6 without IPv6
			for line := range strings.Lines(string(b)) {
				f := strings.Fields(line)
				if len(f) > 3 && strings.Contains(f[1]+" ", want) && f[3] == "0A" {
					return
				}
			}
		}
	}
	t.Fatalf("%v does not listen on port %s", p.cmd.Args, port)
}

// families are the GIDs of the device under test by address family.
func families(t *testing.T, e *env) map[string]string {
	t.Helper()
	require.True(t, e.ip4.IsValid(), "%s has no IPv4 address", e.netdev)
	require.True(t, e.ip6.IsValid(), "%s has no global IPv6 address", e.netdev)
	out := map[string]string{}
	for name, a := range map[string]netip.Addr{"IPv4": e.ip4, "IPv6": e.ip6} {
		g, err := e.ctx.SelectGID(e.port, a)
		require.NoError(t, err)
		out[name] = strconv.Itoa(int(g.Index))
	}
	return out
}

// pingPong runs one ping-pong, validated by both ends.
func pingPong(t *testing.T, e *env, server, client, gid string, size, iters int, events bool) {
	t.Helper()
	port := freePort(t)
	args := []string{"-d", e.dev, "-i", strconv.Itoa(int(e.port)), "-g", gid, "-p", port, "-s", strconv.Itoa(size), "-n", strconv.Itoa(iters), "-c"}
	if events {
		args = append(args, "-e")
	}
	s := startTool(t, append([]string{server}, args...)...)
	s.listening(t, port)
	c := startTool(t, append(append([]string{client}, args...), "localhost")...)
	for _, p := range []*tool{c, s} {
		out := p.wait(t)
		want := fmt.Sprintf("%d round trips of %d bytes", iters, size)
		if strings.HasPrefix(p.name, "ibv_") {
			want = fmt.Sprintf("%d iters in", iters)
			require.NotContains(t, out, "invalid data")
		}
		require.Contains(t, out, want)
	}
}

func TestInterop(t *testing.T) {
	e := newEnv(t, kernelDevice(t))
	gids := families(t, e)
	ours, theirs := goTool(t, "pingpong"), cTool(t, "ibv_rc_pingpong")
	for _, d := range []struct{ name, server, client string }{
		{"C server Go client", theirs, ours},
		{"Go server C client", ours, theirs},
	} {
		for family, gid := range gids {
			for _, size := range []int{64, 4096, 65536} {
				for mode, events := range map[string]bool{"events": true, "polling": false} {
					t.Run(fmt.Sprintf("pingpong/%s/%s/%d bytes/%s", d.name, family, size, mode), func(t *testing.T) {
						pingPong(t, e, d.server, d.client, gid, size, 20, events)
					})
				}
			}
		}
	}
	t.Run("pingpong/Go server Go client", func(t *testing.T) {
		pingPong(t, e, ours, ours, gids["IPv4"], 4096, 20, true)
	})
}

func TestInteropZrdmaPing(t *testing.T) {
	e := newEnv(t, kernelDevice(t))
	zrdma, port := goTool(t, "zrdma"), freePort(t)
	s := startTool(t, zrdma, "ping", "--serve", "-d", e.dev, "-p", port)
	s.listening(t, port)
	for family, gid := range families(t, e) {
		for _, size := range []int{1, 64, 65536} {
			for _, mode := range []string{"--events", "--poll"} {
				t.Run(fmt.Sprintf("%s/%d bytes/%s", family, size, mode[2:]), func(t *testing.T) {
					out := startTool(t, zrdma, "ping", "-d", e.dev, "-p", port, "-g", gid, "-c", "5", "-i", "0", "--size", strconv.Itoa(size), mode, "localhost").wait(t)
					require.Contains(t, out, "5 sent, 5 received, 0% lost")
					require.Equal(t, 5, strings.Count(out, fmt.Sprintf("%d bytes: seq=", size)), out)
				})
			}
		}
	}
	t.Run("the family follows the connection", func(t *testing.T) {
		out := startTool(t, zrdma, "ping", "-d", e.dev, "-p", port, "-c", "1", e.ip6.String()).wait(t)
		require.Contains(t, out, " of "+e.ip6.String()+" to ")
		out = startTool(t, zrdma, "ping", "-d", e.dev, "-p", port, "-c", "1", e.ip4.String()).wait(t)
		require.Contains(t, out, " of "+e.ip4.String()+" to ")
	})
	t.Run("another version is refused", func(t *testing.T) {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, c.SetDeadline(time.Now().Add(waitLimit)))
		_, err = io.WriteString(c, "ZRDMA-PING/77 x=y\n")
		require.NoError(t, err)
		answer, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Contains(t, string(answer), "version 77")
	})
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGINT))
	require.Contains(t, s.wait(t), "5 messages of 65536 bytes")
	t.Run("loopback", func(t *testing.T) {
		out := startTool(t, zrdma, "ping", "-d", e.dev, "--loopback", "--count", "50", "--size", "4096").wait(t)
		require.Regexp(t, `round trips +50 of 50\n`, out)
		require.Regexp(t, `verified bytes +409600\n`, out)
	})
	t.Run("interrupted", func(t *testing.T) {
		p := startTool(t, zrdma, "ping", "-d", e.dev, "--loopback", "--count", "0", "-i", "1000")
		require.Eventually(t, func() bool { return strings.Contains(p.out.String(), "PING on") }, toolLimit, 20*time.Millisecond)
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
		require.Contains(t, p.wait(t), "round trips")
	})
	t.Run("no such device", func(t *testing.T) {
		p := startTool(t, zrdma, "ping", "-d", "nonesuch", "--loopback")
		require.Error(t, <-p.done)
		require.Contains(t, p.out.String(), `device: `)
		require.Contains(t, p.out.String(), "this machine has "+e.dev)
	})
	t.Run("devices", func(t *testing.T) {
		var devs []struct {
			Name  string
			Ports []struct {
				GIDs []struct{ GID, Netdev string }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(startTool(t, zrdma, "devices", "--json").wait(t)), &devs))
		found := false
		for _, d := range devs {
			for _, p := range d.Ports {
				for _, g := range p.GIDs {
					found = found || d.Name == e.dev && g.GID == e.ip4.String() && g.Netdev == e.netdev
				}
			}
		}
		require.True(t, found, "%+v", devs)
	})
}

func init() {
	register("Z05", "interop C", func(t *testing.T, e *env) {
		ours, theirs := goTool(t, "pingpong"), cTool(t, "ibv_rc_pingpong")
		for _, gid := range families(t, e) {
			pingPong(t, e, theirs, ours, gid, 4096, 50, true)
			pingPong(t, e, ours, theirs, gid, 4096, 50, true)
		}
	})
}
