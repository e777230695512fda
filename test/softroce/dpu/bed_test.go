package dpu

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/test/softroce"
	"github.com/zrdma/zrdma/test/softroce/kernel"
)

// Hosts of the bed.
const (
	onHost = iota
	onDPU
	onStore
)

const (
	board  = "BlueField-3 SmartNIC Main Card"
	serial = "MT2331XZ0CGM"
)

// bed is the three VMs. The arm64 one runs the programs of bin/arm64.
type bed struct {
	*softroce.Cluster
	ctx context.Context
}

// boot starts the VMs; at the end of the test their kernels must not have complained.
func boot(t *testing.T) *bed {
	if os.Getenv("SOFTROCE_VM_TESTS") == "" {
		t.Skip("SOFTROCE_VM_TESTS=1 runs the tests that boot VMs")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	t.Cleanup(cancel)
	c, err := softroce.Start(ctx, softroce.Config{
		Hosts: 3, Arch: "amd64", MemoryMiB: 1024, Seed: 1, Log: t.Output(), BootTimeout: 4 * time.Minute,
		Kernel: kernel.Config{Version: os.Getenv("KERNEL")},
		Machines: map[int]softroce.Machine{onDPU: {Arch: "arm64", SMBIOS: []string{
			"type=1,manufacturer=https://www.mellanox.com,product=" + board + ",serial=" + serial,
			"type=2,manufacturer=https://www.mellanox.com,product=" + board,
		}}},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		for i := range c.Len() {
			bad, err := c.Host(i).Warnings(ctx)
			if i == onDPU {
				bad = slices.DeleteFunc(bad, stuckQP)
			}
			if err != nil || len(bad) > 0 {
				t.Errorf("%s: kernel complaints: %q, %v\n%s", c.Host(i).Name(), bad, err, c.Host(i).Console())
			}
		}
		require.NoError(t, c.Close())
	})
	for i := range c.Len() {
		b := c.Host(i).Boot()
		t.Logf("%s: %s, kernel %s, %s, up in %.1f s", c.Host(i).Name(), c.Host(i).Arch(), c.Host(i).Kernel(), b.Accel, b.Wall.Seconds())
	}
	return &bed{c, ctx}
}

// stuckQP is what rxe says of a process that was killed with a window bound to a
// queue pair, which is destroyed before the window: an agent's, to its store.
func stuckQP(complaint string) bool { return strings.Contains(complaint, "__rxe_cleanup") }

// binary is a program of this repository, built before for the host's architecture.
func (b *bed) binary(t *testing.T, host int, name string) string {
	t.Helper()
	dir := os.Getenv("ZRDMA_BIN_DIR")
	require.NotEmpty(t, dir, "ZRDMA_BIN_DIR must name the folder of the built programs: `make bin-arm64` fills bin/ and bin/arm64/")
	if b.Host(host).Arch() != "amd64" {
		dir = filepath.Join(dir, b.Host(host).Arch())
	}
	p, err := filepath.Abs(filepath.Join(dir, name))
	require.NoError(t, err)
	_, err = os.Stat(p)
	require.NoError(t, err, "%s is missing in ZRDMA_BIN_DIR: `make bin-arm64` builds it", name)
	return p
}

// run runs a program of ours to its end and gives what it printed.
func (b *bed) run(t *testing.T, host int, name string, args ...string) string {
	t.Helper()
	out, err := b.output(t, host, name, args...)
	require.NoError(t, err, out)
	return out
}

// output is run that may fail; then it gives what went to stderr, too.
func (b *bed) output(t *testing.T, host int, name string, args ...string) (string, error) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := b.Host(host).Command(b.ctx, append([]string{b.binary(t, host, name)}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String() + errOut.String(), err
	}
	return out.String(), nil
}

// background starts a program of ours that is ended with the test.
func (b *bed) background(t *testing.T, host int, name string, args ...string) *process {
	t.Helper()
	ctx, stop := context.WithCancel(b.ctx)
	p := &process{stop: stop, done: make(chan error, 1)}
	p.Cmd = b.Host(host).Command(ctx, append([]string{b.binary(t, host, name)}, args...)...)
	p.Stdout, p.Stderr = &p.out, &p.out
	require.NoError(t, p.Start())
	go func() { p.done <- p.Wait() }()
	t.Cleanup(p.end)
	return p
}

// process is a program in the background.
type process struct {
	*softroce.Cmd
	out  output
	stop context.CancelFunc // kill -9
	done chan error
	once sync.Once
}

// end kills it, if it still runs, and waits for it.
func (p *process) end() {
	p.stop()
	p.once.Do(func() { <-p.done })
}

// says waits until the program has printed a text.
func (p *process) says(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(p.out.String(), text); time.Sleep(20 * time.Millisecond) {
		require.True(t, time.Now().Before(end), "no %q from %v:\n%s", text, p.Argv, p.out.String())
	}
}

// output is read while the program writes.
type output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// lines are the lines of text that contain all words.
func lines(text string, words ...string) (found []string) {
next:
	for line := range strings.Lines(text) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		found = append(found, strings.TrimSpace(line))
	}
	return found
}
