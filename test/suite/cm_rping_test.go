package suite_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

// listeningRDMA waits until the program has an RDMA listener. It asks the kernel:
// to bind the same port, and fail, would take it from a program about to bind it.
func (p *tool) listeningRDMA(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(toolLimit); ; time.Sleep(20 * time.Millisecond) {
		require.True(t, time.Now().Before(end), "%v does not listen: %s", p.cmd.Args, p.out.String())
		select {
		case err := <-p.done:
			require.Fail(t, "the server ended", "%v: %v: %s", p.cmd.Args, err, p.out.String())
		default:
		}
		out, err := exec.Command("rdma", "-j", "resource", "show", "cm_id").CombinedOutput()
		require.NoError(t, err, "rdma: %s", out)
		var ids []struct {
			State string `json:"state"`
			PID   int    `json:"pid"`
		}
		require.NoError(t, json.Unmarshal(out, &ids), "rdma: %s", out)
		for _, id := range ids {
			// What the kernel calls pid is the thread that made the identifier.
			if _, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", p.cmd.Process.Pid, id.PID)); err == nil && id.State == "LISTEN" {
				return
			}
		}
	}
}

// rpingServer starts an rping server on a port of its own and waits for it.
func (e *env) rpingServer(prog string, addr netip.Addr, args ...string) (*tool, uint16) {
	e.t.Helper()
	ch := e.cmChannel()
	free, err := ch.CreateID(rdmacm.PSTCP)
	require.NoError(e.t, err)
	require.NoError(e.t, free.BindAddr(netip.AddrPortFrom(addr, 0)))
	at := free.LocalAddr()
	require.NoError(e.t, free.Close())
	p := startTool(e.t, append([]string{prog, "-s", "-a", addr.String(), "-p", strconv.Itoa(int(at.Port())), "-v"}, args...)...)
	p.listeningRDMA(e.t)
	return p, at.Port()
}

func TestInteropRping(t *testing.T) {
	dev := kernelDevice(t)
	goRping, cRping := goTool(t, "rping"), cTool(t, "rping")
	for _, d := range []struct{ name, server, client string }{
		{"C_server_Go_client", cRping, goRping},
		{"Go_server_C_client", goRping, cRping},
		{"Go_both", goRping, goRping},
	} {
		for _, six := range []bool{false, true} {
			for _, size := range []int{64, 4000} {
				family := map[bool]string{false: "IPv4", true: "IPv6"}[six]
				t.Run(fmt.Sprintf("rping_%s/%s/%d_bytes", d.name, family, size), func(t *testing.T) {
					e := newEnv(t, dev)
					addr := e.ip4
					if six {
						addr = e.ip6
						require.True(t, addr.IsValid())
					}
					s, port := e.rpingServer(d.server, addr, "-S", strconv.Itoa(size))
					c := startTool(t, d.client, "-c", "-a", addr.String(), "-p", strconv.Itoa(int(port)), "-C", "5", "-S", strconv.Itoa(size), "-v", "-V")
					out := c.wait(t)
					for i := range 5 {
						require.Contains(t, out, fmt.Sprintf("rdma-ping-%d: ", i))
					}
					out = s.wait(t)
					require.Equal(t, 5, strings.Count(out, "server ping data: rdma-ping-"), "%s", out)
				})
			}
		}
	}
	t.Run("rping_malformed", func(t *testing.T) { rpingMalformed(t, newEnv(t, dev), goRping, cRping) })
}

// rpingMalformed plays peers that do not keep to the protocol: the server gives
// each of them up and serves the next.
func rpingMalformed(t *testing.T, e *env, goRping, cRping string) {
	s, port := e.rpingServer(goRping, e.ip4, "-P", "-t", "2s")
	at := netip.AddrPortFrom(e.ip4, port)
	be := func(addr uint64, key, size uint32) []byte {
		var b []byte
		for i := 7; i >= 0; i-- {
			b = append(b, byte(addr>>(8*i)))
		}
		for _, v := range []uint32{key, size} {
			for i := 3; i >= 0; i-- {
				b = append(b, byte(v>>(8*i)))
			}
		}
		return b
	}
	for _, m := range []struct {
		name, want string
		msg        []byte
	}{
		{"short", "does not speak rping", []byte("hello")},
		{"empty", "does not speak rping", nil},
		{"long", "RECV", make([]byte, 64)},
		{"nothing announced", "no memory", be(1, 2, 0)},
		{"too much", "this side takes 64", be(4096, 2, 1<<31)},
		{"wraps", "wraps around", be(^uint64(0)-8, 2, 64)},
		{"bad key", "RDMA_READ", be(4096, 0xdeadbeef, 64)},
		{"silent", "deadline exceeded", nil},
		{"gone", "", nil},
	} {
		before := strings.Count(s.out.String(), "client "+e.ip4.String())
		c, err := e.dial(e.within(cmLimit), at, rdmacm.DialConfig{QP: verbs.QPConfig{Cap: verbs.QPCap{MaxInlineData: 64}}})
		require.NoError(t, err, "%s", m.name)
		if m.name != "silent" && m.name != "gone" {
			wr := verbs.SendWR{ID: 1, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, Inline: m.msg}
			_, err = c.QP.PostSend([]verbs.SendWR{wr})
			require.NoError(t, err)
		}
		if m.want != "" {
			require.Eventually(t, func() bool { return strings.Count(s.out.String(), "client "+e.ip4.String()) > before }, 20*time.Second, 10*time.Millisecond,
				"%s: the server said nothing:\n%s", m.name, s.out.String())
			line := s.out.String()
			line = line[strings.LastIndex(line, "client "+e.ip4.String()):]
			if m.name != "long" && m.name != "bad key" {
				require.Contains(t, line, m.want, "%s", m.name)
			}
		}
		require.NoError(t, c.Close())
	}
	out := startTool(t, cRping, "-c", "-a", e.ip4.String(), "-p", strconv.Itoa(int(port)), "-C", "2", "-v", "-V").wait(t)
	require.Contains(t, out, "rdma-ping-1: ")
}
