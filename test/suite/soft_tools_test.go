package suite_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// on starts a program on a software device of its own.
func on(t *testing.T, addrs string, argv ...string) *tool {
	t.Helper()
	return startTool(t, append([]string{"env", "ZRDMA_DEVICE=soft:" + addrs}, argv...)...)
}

// TestSoftTools has our programs meet each other from two processes, each with an
// address of its own, by nothing but ZRDMA_DEVICE.
func TestSoftTools(t *testing.T) {
	if dev := testDevice(t); !strings.HasPrefix(dev, "soft:") {
		t.Skip("the programs open a device by its name: for soft:ADDRESS only")
	}
	const one, two = "127.0.0.21", "127.0.0.22"
	t.Run("zrdma_devices", func(t *testing.T) {
		out := on(t, one, goTool(t, "zrdma"), "devices").wait(t)
		require.Contains(t, out, "soft:127.0.0.1")
	})
	t.Run("zrdma_ping", func(t *testing.T) {
		port := freePort(t)
		s := on(t, one, goTool(t, "zrdma"), "ping", "--serve", "-p", port)
		s.listening(t, port)
		for _, mode := range []string{"--events", "--poll"} {
			for _, size := range []string{"1", "5000", "1000000"} {
				out := on(t, two, goTool(t, "zrdma"), "ping", "-p", port, "-c", "5", "-i", "0", "--size", size, mode, one).wait(t)
				require.Contains(t, out, "5 sent, 5 received, 0% lost", "%s bytes, %s", size, mode)
			}
		}
		taken := on(t, one, goTool(t, "zrdma"), "ping", "--loopback")
		require.Error(t, <-taken.done)
		require.Contains(t, taken.out.String(), "UDP port 4791 of "+one+" is taken")
		out := on(t, two, goTool(t, "zrdma"), "ping", "--loopback", "-c", "100").wait(t)
		require.Contains(t, out, "100 of 100")
	})
	t.Run("pingpong", func(t *testing.T) {
		port := freePort(t)
		s := on(t, one, goTool(t, "pingpong"), "-p", port, "-n", "50", "-c")
		s.listening(t, port)
		c := on(t, two, goTool(t, "pingpong"), "-p", port, "-n", "50", "-c", one)
		for _, p := range []*tool{c, s} {
			require.Contains(t, p.wait(t), "50 round trips")
		}
	})
	t.Run("rping", func(t *testing.T) {
		s := on(t, one+",::1", goTool(t, "rping"), "-s", "-a", one, "-v")
		out := ""
		for end := time.Now().Add(waitLimit); ; time.Sleep(100 * time.Millisecond) { // until the server listens
			c := on(t, two, goTool(t, "rping"), "-c", "-a", one, "-C", "5", "-v", "-V")
			err := <-c.done
			if out = c.out.String(); err == nil {
				break
			}
			require.True(t, time.Now().Before(end), "%v: %s", err, out)
		}
		for i := range 5 {
			require.Contains(t, out, fmt.Sprintf("rdma-ping-%d: ", i))
		}
		require.Equal(t, 5, strings.Count(s.wait(t), "server ping data: rdma-ping-"))
	})
}
