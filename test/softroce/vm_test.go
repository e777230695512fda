package softroce_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zrdma/zrdma/test/softroce"
	"github.com/zrdma/zrdma/test/softroce/hub"
	"github.com/zrdma/zrdma/test/softroce/kernel"
)

// needVM is the only thing here that skips, and only when nobody asked for VMs.
func needVM(t *testing.T) {
	t.Helper()
	if os.Getenv("SOFTROCE_VM_TESTS") == "" {
		t.Skip("SOFTROCE_VM_TESTS=1 runs the tests that boot VMs")
	}
}

// start boots a cluster; at the end of the test its kernels must not have complained.
func start(t *testing.T, cfg softroce.Config) (context.Context, *softroce.Cluster) {
	t.Helper()
	needVM(t)
	cfg.Kernel.Version = os.Getenv("KERNEL")
	cfg.Log = t.Output()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	c, err := softroce.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for i := range c.Len() {
			bad, err := c.Host(i).Warnings(ctx)
			if err != nil || len(bad) > 0 {
				t.Errorf("%s: kernel complaints: %q, %v", c.Host(i).Name(), bad, err)
			}
			t.Logf("%s: %+v", c.Host(i).Name(), c.Host(i).Boot())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return ctx, c
}

func output(ctx context.Context, t *testing.T, h *softroce.Host, argv ...string) string {
	t.Helper()
	var errOut bytes.Buffer
	cmd := h.Command(ctx, argv...)
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errOut.String())
	}
	return string(out)
}

func TestOneHost(t *testing.T) {
	ctx, c := start(t, softroce.Config{Rxe: 2})
	h := c.Host(0)
	t.Run("exit code", func(t *testing.T) {
		var exit *softroce.ExitError
		if err := h.Command(ctx, "sh", "-c", "exit 42").Run(); !errors.As(err, &exit) || exit.Code != 42 {
			t.Errorf("got %v", err)
		}
		if err := h.Command(ctx, "no-such-program").Run(); err == nil || errors.As(err, &exit) {
			t.Errorf("a program that is not there: %v", err)
		}
	})
	t.Run("streaming", func(t *testing.T) {
		r, w := io.Pipe()
		cmd := h.Command(ctx, "sh", "-c", "echo one; read x; echo two $x")
		in, answer := io.Pipe()
		cmd.Stdin, cmd.Stdout = in, w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The first line must come while the program waits for us.
		buf := make([]byte, 4)
		if _, err := io.ReadFull(r, buf); err != nil || string(buf) != "one\n" {
			t.Fatalf("%q, %v", buf, err)
		}
		go func() { _, _ = answer.Write([]byte("hello\n")) }()
		rest := make([]byte, 10)
		if _, err := io.ReadFull(r, rest); err != nil || string(rest) != "two hello\n" {
			t.Errorf("%q, %v", rest, err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Run("a lot of output", func(t *testing.T) {
		if n := len(output(ctx, t, h, "head", "-c", "20000000", "/dev/zero")); n != 20000000 {
			t.Errorf("%d bytes", n)
		}
	})
	t.Run("place", func(t *testing.T) {
		dir, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		want := dir + "\nhost0\n0 10.77.0.1\nunlimited\n"
		if got := output(ctx, t, h, "sh", "-c", "pwd; hostname; echo $SOFTROCE_HOST $SOFTROCE_IP; ulimit -l"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("memlock", func(t *testing.T) {
		cmd := h.Command(ctx, "sh", "-c", "ulimit -l; id -u")
		cmd.Memlock, cmd.UID = 64<<10, 65534
		if out, err := cmd.Output(); err != nil || string(out) != "64\n65534\n" {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("devices", func(t *testing.T) {
		got := output(ctx, t, h, "sh", "-c", `cd /sys/class/infiniband; for d in *; do echo $d $(cat $d/ports/1/gid_attrs/ndevs/1) $(cat $d/ports/1/gids/1); done; ls /dev/infiniband`)
		want := "rxe0 eth0 0000:0000:0000:0000:0000:ffff:0a4d:0001\nrxe1 eth1 0000:0000:0000:0000:0000:ffff:0a4e:0001\nrdma_cm\nuverbs0\nuverbs1\n"
		if got != want {
			t.Errorf("got %q\nwant %q", got, want)
		}
	})
	t.Run("processor time", func(t *testing.T) {
		before, err := h.CPUTime()
		if err != nil {
			t.Fatal(err)
		}
		output(ctx, t, h, "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
		if after, err := h.CPUTime(); err != nil || after <= before {
			t.Errorf("%v, then %v, %v", before, after, err)
		}
	})
	t.Run("modprobe", func(t *testing.T) {
		if got := output(ctx, t, h, "sh", "-c", "/sbin/modprobe dummy && grep -c ^dummy /proc/modules"); got != "1\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("the host's files are safe", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(name, []byte("host"), 0o644); err != nil {
			t.Fatal(err)
		}
		output(ctx, t, h, "sh", "-c", "printf guest > "+name)
		if b, err := os.ReadFile(name); err != nil || string(b) != "host" {
			t.Errorf("%q, %v", b, err)
		}
		if err := h.CopyOut(ctx, name, name+".out"); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(name + ".out"); err != nil || string(b) != "guest" {
			t.Errorf("%q, %v", b, err)
		}
		if err := h.CopyOut(ctx, "/no/such", name+".no"); err == nil {
			t.Error("a file that is not there was copied out")
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		if err := h.Command(ctx, "sleep", "100").Run(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("kernel log", func(t *testing.T) {
		output(ctx, t, h, "sh", "-c", "echo a line of ours > /dev/kmsg")
		if log, err := h.Dmesg(ctx); err != nil || !strings.Contains(log, "] a line of ours\n") || !strings.Contains(log, "rdma_rxe: loaded") {
			t.Errorf("%v, log:\n%s", err, log)
		}
	})
}

// rping runs count rounds from host 1 to host 0.
func rping(ctx context.Context, t *testing.T, c *softroce.Cluster, count int) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	server := c.Host(0).Command(ctx, "rping", "-s", "-C", fmt.Sprint(count))
	if err := server.Start(); err != nil {
		return err
	}
	time.Sleep(500 * time.Millisecond) // rping does not say that it listens
	err := c.Host(1).Command(ctx, "timeout", "20", "rping", "-c", "-a", "host0", "-C", fmt.Sprint(count)).Run()
	if err != nil {
		_ = server.Kill() // it would wait forever
		_ = server.Wait()
		return err
	}
	return server.Wait()
}

func TestTwoHosts(t *testing.T) {
	pcap := filepath.Join(t.TempDir(), "x.pcap")
	ctx, c := start(t, softroce.Config{Hosts: 2, Pcap: pcap})
	if err := rping(ctx, t, c, 10); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Hub(0).Stats(0, 1); err != nil || s.Delivered == 0 || s.Lost != 0 || s.Overflow != 0 {
		t.Errorf("%+v, %v", s, err)
	}

	t.Run("loss", func(t *testing.T) {
		if err := c.Hub(0).SetLink(1, 0, hub.Faults{Loss: 0.05, Match: hub.RoCE}); err != nil {
			t.Fatal(err)
		}
		if err := rping(ctx, t, c, 30); err != nil {
			t.Error(err)
		}
		if s, err := c.Hub(0).Stats(1, 0); err != nil || s.Lost == 0 {
			t.Errorf("%+v, %v", s, err)
		}
		if err := c.Hub(0).SetAll(hub.Faults{}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("cable", func(t *testing.T) {
		if err := c.Host(0).SetCarrier(ctx, 1, false); err == nil {
			t.Error("a card that is not there")
		}
		state := func(want string) {
			t.Helper()
			script := "for i in $(seq 300); do rdma link show rxe0/1 | grep -q 'state " + want + " ' && exit 0; sleep 0.1; done; rdma link; exit 1"
			if out, err := c.Host(1).Command(ctx, "sh", "-c", script).Output(); err != nil {
				t.Errorf("want %s: %s: %v", want, out, err)
			}
		}
		state("ACTIVE")
		if err := c.Host(1).SetCarrier(ctx, 0, false); err != nil {
			t.Fatal(err)
		}
		state("DOWN")
		if err := c.Host(1).SetCarrier(ctx, 0, true); err != nil {
			t.Fatal(err)
		}
		state("ACTIVE")
		if err := rping(ctx, t, c, 5); err != nil {
			t.Error(err)
		}
	})
	t.Run("partition", func(t *testing.T) {
		ping := []string{"timeout", "3", "rping", "-c", "-a", "host0", "-C", "1"}
		if err := c.Hub(0).Partition(0, 1); err != nil {
			t.Fatal(err)
		}
		if err := c.Host(1).Command(ctx, ping...).Run(); err == nil {
			t.Error("rping went through a partition")
		}
		if err := c.Hub(0).Heal(0, 1); err != nil {
			t.Fatal(err)
		}
		if err := rping(ctx, t, c, 5); err != nil {
			t.Errorf("after the partition: %v", err)
		}
	})
	t.Run("kill and restart", func(t *testing.T) {
		cmd := c.Host(1).Command(ctx, "sleep", "100")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c.Host(1).Kill()
		if err := cmd.Wait(); !errors.Is(err, softroce.ErrDown) {
			t.Errorf("the program on the killed host: %v", err)
		}
		if err := c.Host(1).Command(ctx, "true").Run(); !errors.Is(err, softroce.ErrDown) {
			t.Errorf("a program on a dead host: %v", err)
		}
		if err := c.Host(1).Restart(ctx); err != nil {
			t.Fatal(err)
		}
		if err := rping(ctx, t, c, 5); err != nil {
			t.Errorf("after the restart: %v", err)
		}
	})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(pcap); err != nil || st.Size() < 1000 {
		t.Errorf("capture: %v, %v", st, err)
	}
}

// A guest that dies by itself is reported with its last words.
func TestPanickedGuest(t *testing.T) {
	needVM(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c, err := softroce.Start(ctx, softroce.Config{Kernel: kernel.Config{Version: os.Getenv("KERNEL")}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Host(0).Command(ctx, "sh", "-c", "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger").Run()
	if !errors.Is(err, softroce.ErrDown) || !strings.Contains(err.Error(), "the end of its console") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(c.Host(0).Console(), "sysrq triggered crash") {
		t.Errorf("console: %s", c.Host(0).Console())
	}
}

// A module that the kernel refuses fails the boot, and the error says so.
func TestBadModule(t *testing.T) {
	needVM(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	k, err := kernel.Find(ctx, kernel.Config{Version: os.Getenv("KERNEL")})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), k.Release)
	if err := os.CopyFS(dir, os.DirFS(k.Modules)); err != nil {
		t.Fatal(err)
	}
	bad, err := filepath.Glob(filepath.Join(dir, "kernel/drivers/infiniband/sw/rxe/rdma_rxe.ko*"))
	if err != nil || len(bad) != 1 {
		t.Fatalf("%q, %v", bad, err)
	}
	if err := os.WriteFile(bad[0], []byte("no module"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := softroce.Start(ctx, softroce.Config{Kernel: kernel.Config{Image: k.Image, Modules: dir}})
	if err == nil {
		_ = c.Close()
		t.Fatal("it booted")
	}
	for _, want := range []string{"host0", "guest set-up", "load module rdma_rxe", "the end of its console", "softroce-init: alive"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
}
