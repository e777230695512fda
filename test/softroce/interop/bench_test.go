package interop_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/perf"
	"github.com/zrdma/zrdma/test/softroce"
	"github.com/zrdma/zrdma/test/softroce/hub"
)

// code waits for a program that fails, and gives its exit code.
func (p *tool) code(t *testing.T) int {
	t.Helper()
	err := <-p.done
	require.Error(t, err, "%v printed:\n%s", p.cmd.Argv, p.out.String())
	var e *softroce.ExitError
	require.ErrorAs(t, err, &e)
	return e.Code
}

// TestTools has the operator's tools between two VMs on rxe: every way to ping, the
// path MTU of a network that is narrow, bench, and perftest as its peer.
func TestTools(t *testing.T) {
	c := cluster(t)
	zrdma := goTool(t, "zrdma")
	ping := start(t, c.Host(0), zrdma, "ping", "--serve")
	perftest := start(t, c.Host(0), "ib_write_bw", "-d", "rxe0", "-x", gids["IPv4"], "-F", "-p", "18600")
	ping.says(t, "connections on port 18516 of rdma_cm")
	ping.says(t, "calls on port 18518 of rdma_cm")
	listening(t, c.Host(0), 18600)
	here, there := c.Host(1), c.Host(0).IP(0)

	for name, more := range map[string][]string{"datagrams": {"-t", "ud"}, "cm": {"--cm"}, "cm datagrams": {"--cm", "-t", "ud"}, "calls": {"--rpc", "--size", "64,100000"}} {
		t.Run("ping "+name, func(t *testing.T) {
			out := start(t, here, append([]string{zrdma, "ping", "-c", "5", "-i", "0", there}, more...)...).wait(t)
			require.Contains(t, out, "5 sent, 5 received, 0% lost")
		})
	}
	t.Run("ping over IPv6 by cm", func(t *testing.T) {
		out := start(t, here, zrdma, "ping", "-c", "3", "-i", "0", "--cm", c.Host(0).IP6(0)).wait(t)
		require.Contains(t, out, "3 sent, 3 received, 0% lost")
	})
	t.Run("path MTU", func(t *testing.T) {
		out := start(t, here, zrdma, "ping", "--mtu", there).wait(t)
		require.Contains(t, out, "path MTU 4096")
		long := func(frame []byte) bool { return hub.RoCE(frame) && len(frame) > 1514 }
		require.NoError(t, c.Hub(0).SetLink(1, 0, hub.Faults{Loss: 1, Match: long}))
		defer c.Hub(0).SetLink(1, 0, hub.Faults{})
		out = start(t, here, zrdma, "ping", "--mtu", there).wait(t)
		require.Contains(t, out, "4096 bytes: nobody acknowledged it: lost on the way there")
		require.Contains(t, out, "path MTU 1024")
		require.Contains(t, out, "something between drops larger packets")
	})
	t.Run("datagrams are lost", func(t *testing.T) {
		require.NoError(t, c.Hub(0).SetLink(0, 1, hub.Faults{Loss: 0.5, Match: hub.RoCE}))
		defer c.Hub(0).SetLink(0, 1, hub.Faults{})
		p := start(t, here, zrdma, "ping", "-c", "15", "-i", "0", "-W", "0.1", "-t", "ud", there)
		require.Equal(t, 1, p.code(t), p.out.String())
		require.Regexp(t, `15 sent, ([1-9]|1[0-4]) received, `, p.out.String())
	})
	t.Run("no such address", func(t *testing.T) {
		p := start(t, here, zrdma, "ping", "--cm", "10.77.0.99")
		require.Equal(t, 1, p.code(t))
		require.Contains(t, p.out.String(), "zrdma ping: route: ")
	})
	start(t, c.Host(0), zrdma, "bench", "--serve")
	listening(t, c.Host(0), 18517)
	t.Run("bench", func(t *testing.T) {
		out := start(t, here, zrdma, "bench", there, "--op", "all", "--mode", "latency,bandwidth", "--sizes", "4096", "-n", "10", "--depth", "1", "--warmup", "0", "--format", "json").wait(t)
		var r perf.Report
		require.NoError(t, json.Unmarshal([]byte(out), &r), out)
		require.Len(t, r.Results, 2*len(perf.Ops))
		require.Equal(t, "complete", r.Ended)
		require.Equal(t, "rxe0", r.Server.Device)
		require.False(t, r.Client.StandIn)
		for _, x := range r.Results {
			require.GreaterOrEqual(t, x.Samples[0].Messages, int64(10), x.Case)
		}
		out = start(t, here, zrdma, "bench", there, "--op", "send,write", "-b", "-q", "4", "-T", "2", "--sizes", "6000", "-D", "0.2", "--warmup", "0").wait(t)
		require.Equal(t, 2, strings.Count(out, "both ways"), out)
	})
	t.Run("perftest", func(t *testing.T) { meetPerftest(t, c, zrdma, perftest) })
}

// meetPerftest has bench as the client of perftest, and the other way round: each
// says that it does not fit, and our server goes on.
func meetPerftest(t *testing.T, c *softroce.Cluster, zrdma string, server *tool) {
	p := start(t, c.Host(1), zrdma, "bench", c.Host(0).IP(0), "-p", "18600")
	require.Equal(t, 4, p.code(t), p.out.String())
	require.Contains(t, p.out.String(), "perftest")
	<-server.done // it has no other client

	p = start(t, c.Host(1), "timeout", "20", "ib_write_bw", "-d", "rxe0", "-x", gids["IPv4"], "-F", "-p", "18517", c.Host(0).IP(0))
	<-p.done
	start(t, c.Host(1), zrdma, "bench", c.Host(0).IP(0), "-n", "5").wait(t)
}
