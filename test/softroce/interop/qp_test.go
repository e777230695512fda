package interop_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/test/softroce"
	"github.com/zrdma/zrdma/test/softroce/hub"
)

// deadAfter is Config.DeadAfter of TestPeer in package qp. An idle side finds a
// dead peer within twice that; the rest is for a machine that emulates two VMs.
const (
	deadAfter = 3 * time.Second
	reported  = 2*deadAfter + 15*time.Second
)

func qpPeer(t *testing.T, h *softroce.Host, role string, d time.Duration, env ...string) *tool {
	return start(t, h, append(append([]string{"env", "ZRDMA_TEST_DEVICE=rxe0", "ZRDMA_QP_PEER=" + role, "ZRDMA_QP_TIME=" + d.String()}, env...),
		goTool(t, "qp.test"), "-test.run", "^TestPeer$", "-test.timeout", "3m")...)
}

// says waits until a program has printed a line that begins so.
func (p *tool) says(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(patience); !strings.Contains(p.out.String(), text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %q from %v:\n%s", text, p.cmd.Argv, p.out.String())
		}
	}
}

var endedAfter = regexp.MustCompile(`ENDED after (\S+): (.*)`)

// survived checks what the program that is left said: that it noticed in time,
// and that every buffer came back.
func (p *tool) survived(t *testing.T) {
	t.Helper()
	out := p.wait(t)
	t.Log(out)
	require.Contains(t, out, "CLEAN")
	m := endedAfter.FindStringSubmatch(out)
	require.NotNil(t, m, "it did not notice")
	after, err := time.ParseDuration(m[1])
	require.NoError(t, err)
	require.Less(t, after, reported)
}

// Connections of package qp between two hosts whose network or peer fails while
// eight writes are under way.
func TestQPTwoHosts(t *testing.T) {
	c := cluster(t)
	begin := func(t *testing.T, d time.Duration) (server, client *tool) {
		server = qpPeer(t, c.Host(0), "server", d)
		server.says(t, "LISTENING")
		client = qpPeer(t, c.Host(1), "10.77.0.1:7471", d)
		client.says(t, "WRITING")
		return
	}
	windows := func(t *testing.T) {
		server := qpPeer(t, c.Host(0), "server", 0, "ZRDMA_QP_WORK=windows")
		server.says(t, "LISTENING")
		require.Contains(t, qpPeer(t, c.Host(1), "10.77.0.1:7471", 0, "ZRDMA_QP_WORK=windows").wait(t), "CLEAN")
		require.Contains(t, server.wait(t), "CLEAN")
	}
	t.Run("windows", windows)
	t.Run("windows, 1% loss", func(t *testing.T) {
		require.NoError(t, c.Hub(0).SetAll(hub.Faults{Loss: 0.01, Match: hub.RoCE}))
		defer func() { require.NoError(t, c.Hub(0).SetAll(hub.Faults{})) }()
		windows(t)
	})
	t.Run("1% loss", func(t *testing.T) {
		require.NoError(t, c.Hub(0).SetAll(hub.Faults{Loss: 0.01, Match: hub.RoCE}))
		defer func() { require.NoError(t, c.Hub(0).SetAll(hub.Faults{})) }()
		server, client := begin(t, 10*time.Second)
		out := client.wait(t)
		require.Contains(t, out, "CLEAN")
		require.NotContains(t, out, "ENDED")
		require.Contains(t, server.wait(t), "CLEAN")
		st, err := c.Hub(0).Stats(1, 0)
		require.NoError(t, err)
		t.Log(out, fmt.Sprintf("%+v", st))
	})
	t.Run("partition of 10 s", func(t *testing.T) {
		server, client := begin(t, time.Minute)
		require.NoError(t, c.Hub(0).Partition(0, 1))
		time.Sleep(10 * time.Second)
		require.NoError(t, c.Hub(0).Heal(0, 1))
		client.survived(t)
		server.survived(t)
	})
	t.Run("afterwards", func(t *testing.T) {
		server, client := begin(t, 2*time.Second)
		require.NotContains(t, client.wait(t), "ENDED")
		require.Contains(t, server.wait(t), "CLEAN")
	})
	run := func(t *testing.T, h *softroce.Host, argv ...string) string { return start(t, h, argv...).wait(t) }
	cable := func(t *testing.T, on bool) { require.NoError(t, c.Host(1).SetCarrier(t.Context(), 0, on)) }
	t.Run("the cable is pulled for a moment", func(t *testing.T) {
		server, client := begin(t, 5*time.Second)
		cable(t, false)
		client.says(t, "port is down")
		cable(t, true)
		require.NotContains(t, client.wait(t), "ENDED")
		require.Contains(t, server.wait(t), "CLEAN")
	})
	t.Run("the cable stays out", func(t *testing.T) {
		server, client := begin(t, time.Minute)
		cable(t, false)
		defer cable(t, true)
		client.survived(t)
		require.Contains(t, client.out.String(), "the port is down")
		server.survived(t)
		require.NotContains(t, server.out.String(), "the port is down")
	})
	t.Run("the device is taken away", func(t *testing.T) {
		server, client := begin(t, time.Minute)
		run(t, c.Host(1), "rdma", "link", "delete", "rxe0")
		defer run(t, c.Host(1), "rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "eth0")
		client.survived(t)
		require.Contains(t, client.out.String(), "the device is gone")
		server.survived(t)
	})
	t.Run("the host that is written to is killed", func(t *testing.T) {
		_, client := begin(t, time.Minute)
		c.Host(0).Kill()
		client.survived(t)
		require.NoError(t, c.Host(0).Restart(t.Context()))
	})
	t.Run("the host that writes is killed", func(t *testing.T) {
		server, _ := begin(t, time.Minute)
		c.Host(1).Kill()
		server.survived(t)
		require.NoError(t, c.Host(1).Restart(t.Context()))
	})
}
