package interop_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/test/softroce"
	"github.com/zrdma/zrdma/test/softroce/hub"
)

// peers are the program of ./peer and that of ./c, built here and now.
type peers struct{ ours, c string }

func buildPeers(t *testing.T) peers {
	t.Helper()
	dir := t.TempDir()
	p := peers{filepath.Join(dir, "peer"), filepath.Join(dir, "cpeer")}
	sources, err := filepath.Glob("c/*.c")
	require.NoError(t, err)
	for _, argv := range [][]string{
		{"go", "build", "-o", p.ours, "./peer"},
		append(append([]string{"gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", p.c}, sources...), "-lrdmacm", "-libverbs"),
	} {
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		require.NoError(t, err, "%v:\n%s", argv, out)
	}
	return p
}

// bed is a host with the software device, 0, and one with rxe, 1.
type bed struct {
	*softroce.Cluster
	peers
}

// families are the addresses' names; the index is the software device's GID index.
var families = []string{"IPv4", "IPv6"}

func (b bed) addr(host, family int) string {
	if family == 0 {
		return b.Host(host).IP(0)
	}
	return b.Host(host).IP6(0)
}

// soft runs a program of ours on the software device.
func (b bed) soft(argv ...string) []string {
	return append([]string{"env", "ZRDMA_DEVICE=soft:" + b.addr(0, 0) + "," + b.addr(0, 1)}, argv...)
}

// summary is the last line of a peer's output.
type summary struct {
	OK             bool
	MTU            int
	Ops            uint64
	SentBytes      uint64 `json:"sent_bytes"`
	Messages       uint64
	ExpectedErrors int `json:"expected_errors"`
	Seconds        float64
}

func (p *tool) summary(t *testing.T) summary {
	t.Helper()
	var s summary
	out := strings.TrimSpace(p.wait(t))
	require.NoError(t, json.Unmarshal([]byte(out[strings.LastIndexByte(out, '\n')+1:]), &s), "%s", out)
	require.True(t, s.OK, out)
	return s
}

// run runs a test of the peers between the software device and rxe, and returns
// what the server and the client summed up.
func (b bed) run(t *testing.T, softServes bool, family int, args ...string) (server, client summary) {
	t.Helper()
	sh, ch := 1, 0
	if softServes {
		sh, ch = 0, 1
	}
	argv := func(host int, more ...string) []string {
		l := append(append(more, "-a", b.addr(host, family), "-timeout", "100"), args...)
		if host == 0 {
			return b.soft(append([]string{b.ours}, l...)...)
		}
		return append([]string{b.c}, l...)
	}
	s := start(t, b.Host(sh), argv(sh, "-s")...)
	for end := time.Now().Add(patience); !strings.Contains(s.out.String(), "listening"); time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-s.done:
			s.done <- err
			s.wait(t)
		default:
		}
		require.True(t, time.Now().Before(end), "the server does not listen: %s", s.out.String())
	}
	c := start(t, b.Host(ch), argv(ch, "-c", b.addr(sh, family))...)
	client = c.summary(t)
	server = s.summary(t)
	t.Logf("server %+v, client %+v", server, client)
	return server, client
}

// ways are who serves.
var ways = []struct {
	name string
	soft bool
}{{"soft serves rxe", true}, {"rxe serves soft", false}}

// patient is for runs without faults: no packet is lost, but an emulated guest on
// a busy machine may answer late. quick finds a loss soon.
var (
	patient = []string{"-ack", "18"}
	quick   = []string{"-ack", "16"}
)

func args(s string, more ...string) []string { return append(strings.Fields(s), more...) }

func TestSoft(t *testing.T) {
	if os.Getenv("SOFTROCE_VM_TESTS") == "" {
		t.Skip("SOFTROCE_VM_TESTS=1 runs the tests that boot VMs")
	}
	p := buildPeers(t)
	b := bed{boot(t, softroce.Config{Hosts: 2, NoRxe: []int{0}, Seed: 1}), p}
	each := func(name string, f func(t *testing.T, soft bool, family int)) {
		for _, w := range ways {
			for i, fam := range families {
				t.Run(name+"/"+w.name+"/"+fam, func(t *testing.T) { f(t, w.soft, i) })
			}
		}
	}
	each("mix", func(t *testing.T, soft bool, family int) {
		s, c := b.run(t, soft, family, args("-t mix -n 150", patient...)...)
		require.Equal(t, []uint64{150, 150}, []uint64{s.Ops, c.Ops})
		require.Equal(t, 4096, c.MTU)
	})
	each("windows", func(t *testing.T, soft bool, family int) {
		s, c := b.run(t, soft, family, args("-t inv -n 20", patient...)...)
		require.EqualValues(t, 20, s.Messages)
		require.Equal(t, 1, c.ExpectedErrors, "the key that was taken away")
	})
	each("refused", func(t *testing.T, soft bool, family int) {
		_, c := b.run(t, soft, family, args("-t refuse", patient...)...)
		require.Equal(t, 24, c.ExpectedErrors)
	})
	each("late receives", func(t *testing.T, soft bool, family int) {
		s, c := b.run(t, soft, family, args("-t rnr -max 9000", patient...)...)
		require.EqualValues(t, 4, s.Messages)
		require.Equal(t, 4, c.ExpectedErrors)
	})
	for i, mtu := range []int{256, 512, 1024, 2048, 4096} {
		t.Run(fmt.Sprintf("path MTU %d", mtu), func(t *testing.T) {
			for _, w := range ways {
				_, c := b.run(t, w.soft, i%2, args(fmt.Sprintf("-t mix -n 50 -max 20000 -oob -m %d -seed %d", mtu, mtu), patient...)...)
				require.Equal(t, mtu, c.MTU)
			}
		})
	}
	t.Run("cards with MTU 1500", func(t *testing.T) {
		b.setMTU(t, 1500, 1024)
		defer b.setMTU(t, 4200, 4096)
		for i, w := range ways {
			_, c := b.run(t, w.soft, i, args("-t mix -n 50 -max 20000 -seed 7", patient...)...)
			require.Equal(t, 1024, c.MTU)
		}
	})
	t.Run("packet numbers wrap", func(t *testing.T) {
		for i, w := range ways {
			b.run(t, w.soft, i, args("-t mix -n 60 -max 20000 -oob -m 256 -psn 0xffffc0 -seed 3", patient...)...)
			b.run(t, w.soft, i, args("-t stream -n 2000 -max 600 -oob -m 256 -psn 0xfffe00", patient...)...)
		}
	})
	t.Run("up to 16 MiB", func(t *testing.T) {
		for i, w := range ways {
			b.run(t, w.soft, i, args("-t mix -n 16 -max 16777216 -depth 4 -seed 2", patient...)...)
		}
	})
	t.Run("loss, duplication and reordering", func(t *testing.T) { b.faults(t) })
	t.Run("a million messages", func(t *testing.T) {
		const n = 1_000_000
		for i, w := range ways {
			for _, dir := range []string{"c2s", "s2c"} {
				s, c := b.run(t, w.soft, i, args(fmt.Sprintf("-t stream -n %d -max 64 -timeout 230 -dir %s", n/4, dir), patient...)...)
				require.EqualValues(t, n/4, s.Messages+c.Messages)
			}
		}
	})
	t.Run("ibv_rc_pingpong", func(t *testing.T) { b.pingPong(t) })
	t.Run("rping", func(t *testing.T) { b.rping(t) })
	t.Run("ICRC", func(t *testing.T) { b.icrc(t) })
	t.Logf("rxe's counters: %v", b.counters(t))
}

// setMTU changes the cards' MTU and waits for rxe to follow. The software device
// looks when it is opened.
func (b bed) setMTU(t *testing.T, card, path int) {
	t.Helper()
	for i := range b.Len() {
		start(t, b.Host(i), "ip", "link", "set", "eth0", "mtu", fmt.Sprint(card)).wait(t)
	}
	until(t, b.Host(1), fmt.Sprintf("ibv_devinfo | grep -q 'active_mtu:[[:space:]]*%d'", path))
}

// faults runs with one packet in a hundred lost, one repeated and one overtaken,
// in both directions.
func (b bed) faults(t *testing.T) {
	f := hub.Faults{Loss: 0.01, Duplicate: 0.01, Reorder: 0.01, Match: hub.RoCE}
	for _, dir := range [][2]int{{0, 1}, {1, 0}} {
		require.NoError(t, b.Hub(0).SetLink(dir[0], dir[1], f))
		defer b.Hub(0).SetLink(dir[0], dir[1], hub.Faults{})
	}
	flags := quick
	if strings.HasPrefix(b.Host(0).Kernel(), "6.12") {
		// There rxe answers a repeated READ behind an operation of no bytes with a
		// WARNING and an access error, to another rxe as well.
		flags = append([]string{"-min", "1"}, flags...)
	}
	for i, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			for k := range families {
				b.run(t, w.soft, k, args(fmt.Sprintf("-t mix -n 80 -oob -m 1024 -seed %d", 10+2*i+k), flags...)...)
			}
			b.run(t, w.soft, i, args("-t mix -n 40 -seed 20", flags...)...)
			b.run(t, w.soft, i, args("-t stream -n 4000 -max 64", quick...)...)
		})
	}
}

func (b bed) pingPong(t *testing.T) {
	ours := goTool(t, "pingpong")
	flags := []string{"-p", fmt.Sprint(port), "-s", "20000", "-n", "50", "-c", "-e"}
	rxe := func(family int) []string {
		return append([]string{"ibv_rc_pingpong", "-d", "rxe0", "-g", gids[families[family]]}, flags...)
	}
	soft := func(family int) []string {
		return b.soft(append([]string{ours, "-g", fmt.Sprint(family)}, flags...)...)
	}
	for family, name := range families {
		for _, w := range ways {
			t.Run(w.name+"/"+name, func(t *testing.T) {
				sh, server, client := 1, rxe(family), soft(family)
				if w.soft {
					sh, server, client = 0, client, server
				}
				s := start(t, b.Host(sh), server...)
				listening(t, b.Host(sh), port)
				c := start(t, b.Host(1-sh), append(client, b.addr(sh, 0))...) // the C server listens on IPv4 only
				require.Regexp(t, "50 (iters in|round trips of 20000 bytes)", c.wait(t))
				require.Regexp(t, "50 (iters in|round trips of 20000 bytes)", s.wait(t))
			})
		}
	}
}

func (b bed) rping(t *testing.T) {
	ours := goTool(t, "rping")
	for family, name := range families {
		for _, w := range ways {
			t.Run(w.name+"/"+name, func(t *testing.T) {
				sh, server, client := 1, []string{"rping"}, b.soft(ours)
				if w.soft {
					sh, server, client = 0, client, server
				}
				flags := []string{"-a", b.addr(sh, family), "-C", "20", "-S", "10000", "-V"}
				s := start(t, b.Host(sh), append(append(server, "-s"), flags...)...)
				if w.soft {
					until(t, b.Host(0), "grep -qi ':12B7 ' /proc/net/udp /proc/net/udp6")
				} else {
					until(t, b.Host(1), "rdma resource show cm_id | grep -q LISTEN")
				}
				start(t, b.Host(1-sh), append(append(client, "-c"), flags...)...).wait(t)
				s.wait(t)
			})
		}
	}
}

// counters are rxe's.
func (b bed) counters(t *testing.T) map[string]int {
	t.Helper()
	out := start(t, b.Host(1), "sh", "-c", "cd /sys/class/infiniband/rxe0/ports/1/hw_counters && grep . *").wait(t)
	m := map[string]int{}
	for line := range strings.Lines(out) {
		name, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		n, err := strconv.Atoi(v)
		require.NoError(t, err, line)
		m[name] = n
	}
	return m
}

// icrc compares what reached rxe with what rxe took. It has no counter of wrong
// ICRCs, but counts as received what passed that check. One packet whose ICRC is
// wrong shows that the comparison can fail.
func (b bed) icrc(t *testing.T) {
	var frames atomic.Int64
	count := func(f []byte) bool {
		if hub.RoCE(f) {
			frames.Add(1)
		}
		return false
	}
	require.NoError(t, b.Hub(0).SetLink(0, 1, hub.Faults{Match: count}))
	defer b.Hub(0).SetLink(0, 1, hub.Faults{})
	before := b.counters(t)["rcvd_pkts"]
	refused := func() int { return int(frames.Load()) - (b.counters(t)["rcvd_pkts"] - before) }
	for family := range families {
		for _, w := range ways {
			b.run(t, w.soft, family, args("-t mix -n 100 -oob -m 1024 -seed 30", patient...)...)
		}
	}
	require.Greater(t, frames.Load(), int64(1000))
	require.Zero(t, refused(), "of %d packets", frames.Load())
	// A SEND to queue pair 1 with the right keys and four zero bytes for the ICRC.
	const bad = `\x64\x40\xff\xff\x00\x00\x00\x01\x00\x00\x00\x00\x80\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00`
	start(t, b.Host(0), "bash", "-c", "printf '"+bad+"' > /dev/udp/"+b.addr(1, 0)+"/4791").wait(t)
	for end := time.Now().Add(patience); refused() != 1; time.Sleep(10 * time.Millisecond) {
		require.True(t, time.Now().Before(end), "%d packets refused, not the one that is wrong", refused())
	}
}
