package interop_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/test/softroce"
	"github.com/zrdma/zrdma/test/softroce/hub"
)

// goTool is a program of this repository, built before on this machine.
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

// output is read while a program writes it.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// limit is for a program that serves several subtests, patience for one step.
const (
	limit    = 4 * time.Minute
	patience = 30 * time.Second
)

// tool is a program on a host; it is killed at the end of the test.
type tool struct {
	cmd  *softroce.Cmd
	out  output
	done chan error
}

func start(t *testing.T, h *softroce.Host, argv ...string) *tool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	p := &tool{cmd: h.Command(ctx, argv...), done: make(chan error, 1)}
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

func (p *tool) wait(t *testing.T) string {
	t.Helper()
	err := <-p.done
	require.NoError(t, err, "%v printed:\n%s", p.cmd.Argv, p.out.String())
	return p.out.String()
}

// until runs a shell condition on the host again and again until it holds.
func until(t *testing.T, h *softroce.Host, condition string) {
	t.Helper()
	start(t, h, "timeout", fmt.Sprint(patience.Seconds()), "sh", "-c", "until "+condition+"; do sleep 0.05; done").wait(t)
}

const port = 18515

// listening looks for the port without connecting: a ping-pong server takes one
// connection.
func listening(t *testing.T, h *softroce.Host, port int) {
	t.Helper()
	until(t, h, fmt.Sprintf("cat /proc/net/tcp /proc/net/tcp6 | grep -qi ':%04x [0-9a-f]*:0000 0A'", port))
}

// gids of the guests: 0 is link-local, then come the addresses in order.
var gids = map[string]string{"IPv4": "1", "IPv6": "2"}

func cluster(t *testing.T) *softroce.Cluster {
	if os.Getenv("SOFTROCE_VM_TESTS") == "" {
		t.Skip("SOFTROCE_VM_TESTS=1 runs the tests that boot VMs")
	}
	return boot(t, softroce.Config{Hosts: 2})
}

// boot starts VMs whose kernels must not have complained at the end of the test.
func boot(t *testing.T, cfg softroce.Config) *softroce.Cluster {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	t.Cleanup(cancel)
	cfg.Log = t.Output()
	cfg.Pcap = os.Getenv("SOFTROCE_PCAP") // to look at a failure
	cfg.Kernel.Version = os.Getenv("KERNEL")
	c, err := softroce.Start(ctx, cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		for i := range c.Len() {
			bad, err := c.Host(i).Warnings(ctx)
			if err != nil || len(bad) > 0 {
				t.Errorf("%s: kernel complaints: %q, %v", c.Host(i).Name(), bad, err)
			}
		}
		require.NoError(t, c.Close())
	})
	return c
}

func TestTwoHosts(t *testing.T) {
	c := cluster(t)
	ours := goTool(t, "pingpong")
	for _, d := range []struct{ name, server, client string }{
		{"C server Go client", "ibv_rc_pingpong", ours},
		{"Go server C client", ours, "ibv_rc_pingpong"},
		{"Go server Go client", ours, ours},
	} {
		for _, family := range []string{"IPv4", "IPv6"} {
			for _, size := range []int{64, 65536} {
				for _, mode := range []string{"events", "polling"} {
					t.Run(fmt.Sprintf("pingpong/%s/%s/%d bytes/%s", d.name, family, size, mode), func(t *testing.T) {
						pingPong(t, c, d.server, d.client, family, size, mode == "events")
					})
				}
			}
		}
	}
	t.Run("rping", func(t *testing.T) { testRping(t, c) })
	t.Run("zrdma ping", func(t *testing.T) { testPing(t, c) })
}

func pingPong(t *testing.T, c *softroce.Cluster, server, client, family string, size int, events bool) {
	const iters = 20
	argv := []string{"-d", "rxe0", "-g", gids[family], "-p", fmt.Sprint(port), "-s", fmt.Sprint(size), "-n", fmt.Sprint(iters), "-c"}
	if events {
		argv = append(argv, "-e")
	}
	s := start(t, c.Host(0), append([]string{server}, argv...)...)
	listening(t, c.Host(0), port)
	// The C server listens on IPv4 only, whatever the GID.
	host := "host0"
	if family == "IPv6" && server != "ibv_rc_pingpong" {
		host = "host0-v6"
	}
	cl := start(t, c.Host(1), append(append([]string{client}, argv...), host)...)
	for _, p := range []*tool{cl, s} {
		out := p.wait(t)
		want := fmt.Sprintf("%d round trips of %d bytes", iters, size)
		if p.cmd.Argv[0] == "ibv_rc_pingpong" {
			want = fmt.Sprintf("%d iters in", iters)
			require.NotContains(t, out, "invalid data")
		}
		require.Contains(t, out, want)
	}
}

// testRping needs examples/rping: as soon as its source is there, so must the
// program be.
func testRping(t *testing.T, c *softroce.Cluster) {
	pairs := []struct{ name, server, client string }{{"C server C client", "rping", "rping"}}
	if _, err := os.Stat("../../../examples/rping"); err == nil {
		ours := goTool(t, "rping")
		pairs = append(pairs, []struct{ name, server, client string }{
			{"C server Go client", "rping", ours}, {"Go server C client", ours, "rping"},
		}...)
	}
	for _, d := range pairs {
		for i, addr := range []string{c.Host(0).IP(0), c.Host(0).IP6(0)} {
			t.Run(d.name+"/"+[]string{"IPv4", "IPv6"}[i], func(t *testing.T) {
				s := start(t, c.Host(0), d.server, "-s", "-a", addr, "-C", "10", "-V")
				until(t, c.Host(0), "rdma resource show cm_id | grep -q LISTEN")
				start(t, c.Host(1), d.client, "-c", "-a", addr, "-C", "10", "-V").wait(t)
				s.wait(t)
			})
		}
	}
}

func testPing(t *testing.T, c *softroce.Cluster) {
	zrdma := goTool(t, "zrdma")
	server := start(t, c.Host(0), zrdma, "ping", "--serve")
	listening(t, c.Host(0), 18516)
	for family, host := range map[string]string{"IPv4": c.Host(0).IP(0), "IPv6": c.Host(0).IP6(0)} {
		for _, mode := range []string{"--events", "--poll"} {
			t.Run(family+"/"+mode[2:], func(t *testing.T) {
				out := start(t, c.Host(1), zrdma, "ping", "-c", "10", "-i", "0", "--size", "5000", mode, host).wait(t)
				require.Contains(t, out, "10 sent, 10 received, 0% lost")
				require.Contains(t, out, " to QP ")
				require.Contains(t, out, " of "+host+", MTU 4096", "the GID follows the address of the connection")
			})
		}
	}
	t.Run("other MTU", func(t *testing.T) {
		start(t, c.Host(1), "ip", "link", "set", "eth0", "mtu", "1500").wait(t)
		until(t, c.Host(1), "ibv_devinfo | grep -q 'active_mtu:[[:space:]]*1024'")
		out := start(t, c.Host(1), zrdma, "ping", "-c", "3", "-i", "0", "--size", "5000", c.Host(0).IP(0)).wait(t)
		require.Contains(t, out, "warning: the ports' MTUs differ, 1024 here and 4096 there: using 1024")
		require.Contains(t, out, "3 sent, 3 received")
		start(t, c.Host(1), "ip", "link", "set", "eth0", "mtu", "4200").wait(t)
	})
	t.Run("packets lost for good", func(t *testing.T) {
		p := start(t, c.Host(1), zrdma, "ping", "-i", "0.1", c.Host(0).IP(0))
		for end := time.Now().Add(patience); !strings.Contains(p.out.String(), "seq=3 "); time.Sleep(20 * time.Millisecond) {
			require.True(t, time.Now().Before(end), "no third message: %s", p.out.String())
		}
		require.NoError(t, c.Hub(0).SetLink(1, 0, hub.Faults{Loss: 1, Match: hub.RoCE}))
		defer c.Hub(0).SetLink(1, 0, hub.Faults{})
		require.Error(t, <-p.done)
		out := p.out.String()
		require.Contains(t, out, "ping: retry: ", "the step is named")
		require.Contains(t, out, "retry exceeded")
		require.Regexp(t, `\d+ sent, \d+ received, [1-9]`, out)
	})
	require.NotContains(t, server.out.String(), "then:", "a session that the server did not like")
}
