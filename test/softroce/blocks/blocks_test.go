package blocks

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/test/softroce"
	"github.com/zrdma/zrdma/test/softroce/hub"
)

// binary is a program of this repository, built before on this machine.
func binary(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("ZRDMA_BIN_DIR")
	require.NotEmpty(t, dir, "ZRDMA_BIN_DIR must name the folder of the built programs: `make bin` fills bin/")
	p, err := filepath.Abs(filepath.Join(dir, name))
	require.NoError(t, err)
	_, err = os.Stat(p)
	require.NoError(t, err, "%s is missing in ZRDMA_BIN_DIR: `make bin` builds it", name)
	return p
}

// two are two VMs: host 0 serves blocks, host 1 works with them.
type two struct {
	*softroce.Cluster
	t      *testing.T
	ctx    context.Context
	prog   string
	device string             // of both, or several
	stop   context.CancelFunc // kill -9 of the server
	served chan error
}

// deadAfter is more than a machine that emulates two others stalls for.
const deadAfter = "3s"

func boot(t *testing.T, cards int) *two {
	if os.Getenv("SOFTROCE_VM_TESTS") == "" {
		t.Skip("SOFTROCE_VM_TESTS=1 runs the tests that boot VMs")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	t.Cleanup(cancel)
	c, err := softroce.Start(ctx, softroce.Config{Hosts: 2, Rxe: cards, Seed: 1, Log: t.Output()})
	require.NoError(t, err)
	w := &two{Cluster: c, t: t, ctx: ctx, prog: binary(t, "blockstore"), device: "rxe0"}
	for i := 1; i < cards; i++ {
		w.device += fmt.Sprintf(",rxe%d", i)
	}
	t.Cleanup(func() {
		for i := range c.Len() {
			bad, err := c.Host(i).Warnings(ctx)
			if err != nil || len(bad) > 0 {
				t.Errorf("%s: kernel complaints: %q, %v", c.Host(i).Name(), bad, err)
			}
		}
		require.NoError(t, c.Close())
	})
	return w
}

// serve starts the server, with the blocks that are there.
func (w *two) serve() {
	ctx, stop := context.WithCancel(w.ctx)
	w.stop, w.served = stop, make(chan error, 1)
	cmd := w.Host(0).Command(ctx, w.prog, "serve", "--dir", "/tmp/blocks", "--listen", "10.77.0.1:7471", "--dead-after", deadAfter)
	cmd.Env = append(os.Environ(), "ZRDMA_DEVICE="+w.device)
	cmd.Stdout, cmd.Stderr = w.t.Output(), w.t.Output()
	require.NoError(w.t, cmd.Start())
	go func() { w.served <- cmd.Wait() }()
}

// kill ends the server as kill -9 does.
func (w *two) kill() {
	w.stop()
	<-w.served
}

// output is what a program prints; begun is closed by its first line.
type output struct {
	b     bytes.Buffer
	begun chan struct{}
	once  sync.Once
}

func (o *output) Write(p []byte) (int, error) {
	if bytes.IndexByte(p, '\n') >= 0 {
		o.once.Do(func() { close(o.begun) })
	}
	return o.b.Write(p)
}

// load works with blocks, disturbed by during, and gives what it says in the end.
func (w *two) load(t *testing.T, seed, blocks int, during func(), more ...string) string {
	argv := append([]string{w.prog, "load", "--server", "10.77.0.1:7471", "--blocks", fmt.Sprint(blocks), "--seed", fmt.Sprint(seed),
		"--max", "262144", "--workers", "8", "--quiet", "--dead-after", deadAfter}, more...)
	ctx, cancel := context.WithTimeout(w.ctx, 2*time.Minute)
	defer cancel()
	start := time.Now()
	out := &output{begun: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		cmd := w.Host(1).Command(ctx, argv...)
		cmd.Env = append(os.Environ(), "ZRDMA_DEVICE="+w.device)
		cmd.Stdout, cmd.Stderr = out, t.Output()
		done <- cmd.Run()
	}()
	select {
	case <-out.begun:
		if during != nil {
			during()
		}
	case err := <-done: // it never began
		done <- err
	}
	err := <-done
	require.NoError(t, err, "%s", &out.b)
	summary := regexp.MustCompile(`(?m)^(put|get|.* verified|buffers|connections|longest|rail).*$`).FindAllString(out.b.String(), -1)
	for _, line := range summary {
		t.Log(line)
	}
	t.Logf("took %v", time.Since(start).Round(time.Millisecond))
	require.Contains(t, out.b.String(), "after their time: 0", "calls that hung")
	require.Contains(t, out.b.String(), "leaked 0")
	return out.b.String()
}

// TestBlocks: whatever the network does, calls end in time, all data is right, and
// what was acknowledged is there after the server was killed.
func TestBlocks(t *testing.T) {
	w := boot(t, 1)
	w.serve()
	time.Sleep(time.Second)
	faults := func(f hub.Faults) {
		f.Match = hub.RoCE
		require.NoError(t, w.Hub(0).SetAll(f))
	}
	t.Run("quiet", func(t *testing.T) { w.load(t, 1, 100, nil) })
	for i, x := range []struct {
		name string
		f    hub.Faults
	}{
		{"1% loss", hub.Faults{Loss: 0.01}},
		{"5% loss", hub.Faults{Loss: 0.05}},
		{"reordering", hub.Faults{Reorder: 0.02}},
		{"duplication", hub.Faults{Duplicate: 0.05}},
	} {
		t.Run(x.name, func(t *testing.T) {
			faults(x.f)
			defer faults(hub.Faults{})
			w.load(t, 10+i, 25, nil)
		})
	}
	t.Run("partition", func(t *testing.T) {
		w.load(t, 20, 150, func() {
			time.Sleep(500 * time.Millisecond)
			require.NoError(t, w.Hub(0).Partition(0, 1))
			time.Sleep(10 * time.Second)
			require.NoError(t, w.Hub(0).Heal(0, 1))
		})
	})
	t.Run("killed", func(t *testing.T) {
		w.load(t, 30, 150, func() {
			time.Sleep(500 * time.Millisecond)
			w.kill()
			time.Sleep(time.Second)
			w.serve()
		})
		w.kill()
		w.serve()
		t.Log("after another kill, what was acknowledged:")
		w.load(t, 30, 150, nil, "--verify")
	})
	// Of the acknowledged blocks none is missing after either.
	for i, host := range []int{1, 0} {
		t.Run(fmt.Sprintf("link of host %d down", host), func(t *testing.T) {
			w.load(t, 40+i, 150, func() {
				time.Sleep(500 * time.Millisecond)
				w.link(host, 0, false)
				time.Sleep(4 * time.Second)
				w.link(host, 0, true)
			})
			w.load(t, 40+i, 150, nil, "--verify")
		})
	}
	w.kill()
}

// link pulls the cable of a card of a host, or plugs it in. (A card that the host
// itself sets down breaks rxe's connection manager for good: docs/rxe.md.)
func (w *two) link(host, card int, up bool) {
	require.NoError(w.t, w.Host(host).SetCarrier(w.ctx, card, up))
}

// TestRails: with two cards in each host, on networks of their own, either may fail:
// the session goes on, and the card is used again when it is back.
func TestRails(t *testing.T) {
	w := boot(t, 2)
	w.serve()
	time.Sleep(time.Second)
	rails := func(t *testing.T, out string, lost int) {
		t.Helper()
		require.Contains(t, out, "connections: 1,", "the session was lost")
		for i := range 2 {
			m := regexp.MustCompile(fmt.Sprintf(`(?m)^rail rxe%d: (\w+); (\d+) calls .* lost (\d+) times$`, i)).FindStringSubmatch(out)
			require.Len(t, m, 4, out)
			require.NotEqual(t, "0", m[2], "a rail without calls")
			require.Equal(t, i == lost, m[3] != "0", m[0])
			require.Equal(t, "up", m[1], m[0])
		}
	}
	up := []string{"--rails-up", "30s"}
	large := []string{"--min", "200000", "--max", "1048576"}
	t.Run("quiet", func(t *testing.T) { rails(t, w.load(t, 50, 60, nil, large...), -1) })
	for card := range 2 {
		t.Run(fmt.Sprintf("partition of card %d", card), func(t *testing.T) {
			rails(t, w.load(t, 51+card, 250, func() {
				time.Sleep(time.Second)
				require.NoError(t, w.Hub(card).Partition(0, 1))
				time.Sleep(6 * time.Second)
				require.NoError(t, w.Hub(card).Heal(0, 1))
			}, up...), card)
		})
	}
	t.Run("link of card 1 down", func(t *testing.T) {
		rails(t, w.load(t, 53, 250, func() {
			time.Sleep(time.Second)
			w.link(1, 1, false)
			time.Sleep(6 * time.Second)
			w.link(1, 1, true)
		}, up...), 1)
		w.load(t, 53, 250, nil, "--verify")
	})
	w.kill()
}

// TestFileCopy copies the sources of this package's own program from one host to the
// other, kills the server in between, and compares what is there with what was sent.
func TestFileCopy(t *testing.T) {
	w := boot(t, 1)
	w.prog = binary(t, "filecopy")
	src, err := filepath.Abs("../../..")
	require.NoError(t, err)
	src = filepath.Join(src, "internal")
	start := func() {
		ctx, stop := context.WithCancel(w.ctx)
		w.stop, w.served = stop, make(chan error, 1)
		cmd := w.Host(0).Command(ctx, w.prog, "serve", "--dir", "/tmp/copy", "--listen", "10.77.0.1:7472")
		cmd.Env = append(os.Environ(), "ZRDMA_DEVICE=rxe0")
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		require.NoError(t, cmd.Start())
		go func() { w.served <- cmd.Wait() }()
	}
	run := func(args ...string) string {
		ctx, cancel := context.WithTimeout(w.ctx, 3*time.Minute)
		defer cancel()
		cmd := w.Host(1).Command(ctx, append([]string{w.prog}, args...)...)
		cmd.Env = append(os.Environ(), "ZRDMA_DEVICE=rxe0")
		cmd.Stderr = t.Output()
		out, err := cmd.Output()
		require.NoError(t, err, "%s", out)
		t.Logf("%s", out)
		return string(out)
	}
	start()
	run("copy", "--quiet", "--server", "10.77.0.1:7472", src)
	w.kill()
	start()
	require.Contains(t, run("copy", "--quiet", "--resume", "--server", "10.77.0.1:7472", src), "copied 0 files", "all are there, whole")
	require.Contains(t, run("verify", "--quiet", "--server", "10.77.0.1:7472", src), "verified")
	w.kill()
}

// TestStorm is the storm of cancellations of package rpc, and its control, on rxe.
func TestStorm(t *testing.T) {
	w := boot(t, 1)
	ctx, cancel := context.WithTimeout(w.ctx, 3*time.Minute)
	defer cancel()
	cmd := w.Host(0).Command(ctx, binary(t, "rpc.test"), "-test.v", "-test.run", "^TestStorm", "-rpc.storm", "1500", "-rpc.stormers", "16", "-test.timeout", "2m30s")
	cmd.Env = append(os.Environ(), "ZRDMA_TEST_DEVICE=rxe0")
	out, err := cmd.Output()
	t.Logf("%s", out)
	require.NoError(t, err)
}
