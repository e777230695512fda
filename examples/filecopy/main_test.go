package main

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The test binary is the program when this is set.
const beProgram = "FILECOPY_BE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(beProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func program(ctx context.Context, addr string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, os.Args[0], args...)
	c.Env = append(os.Environ(), beProgram+"=1", "ZRDMA_DEVICE=soft:"+addr)
	return c
}

// serve starts a server in a process of its own; kill ends it as kill -9 does.
func serve(t *testing.T, dir, listen string) (addr string, kill func()) {
	ctx, cancel := context.WithCancel(context.Background())
	c := program(ctx, loopback(11), "serve", "--dir", dir, "--listen", listen)
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	c.Stderr = t.Output()
	require.NoError(t, c.Start())
	kill = func() {
		cancel()
		_ = c.Wait()
	}
	t.Cleanup(kill)
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan(), "the server says nothing")
	_, at, ok := strings.Cut(lines.Text(), " on ")
	require.True(t, ok, lines.Text())
	addr, _, _ = strings.Cut(at, ",")
	return addr, kill
}

// The server is killed while a tree is copied, and started again: the copy goes on,
// and is whole.
func TestKill(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	plant(t, src)
	for i := range 4 {
		require.NoError(t, os.WriteFile(filepath.Join(src, "large"+string(rune('a'+i))), bytes.Repeat([]byte{byte(i), 1, 2}, 4<<20), 0o644))
	}
	addr, kill := serve(t, dst, loopback(11)+":0")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var out bytes.Buffer
	cl := program(ctx, loopback(12), "copy", "--server", addr, src)
	cl.Stdout, cl.Stderr = &out, t.Output()
	require.NoError(t, cl.Start())
	for { // in the middle of it
		if l, _ := filepath.Glob(filepath.Join(dst, "a/*/*")); len(l) > 0 {
			break
		}
		require.NoError(t, ctx.Err())
		time.Sleep(time.Millisecond)
	}
	kill()
	_, kill = serve(t, dst, addr)
	require.NoError(t, cl.Wait(), out.String())
	require.Contains(t, out.String(), "13 files")
	require.Equal(t, tree(t, src), tree(t, dst))
	v, err := program(ctx, loopback(12), "verify", "--quiet", "--server", addr, src).CombinedOutput()
	require.NoError(t, err, string(v))
	require.Contains(t, string(v), "verified 13 files")
	require.NoError(t, os.Remove(filepath.Join(dst, "largea")))
	v, err = program(ctx, loopback(12), "verify", "--quiet", "--server", addr, src).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(v), "largea: "+errDiffers.Error())
	kill()
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"copy", "/tmp"}, {"copy", "--server", "x:1"}, {"copy", "--server", "x:1", "--jobs", "0", "/tmp"}, {"serve"},
		{"copy", "--server", loopback(13) + ":1", "--patience", "1ns", "/tmp"}} {
		out, err := program(t.Context(), loopback(12), args...).CombinedOutput()
		require.Error(t, err, args)
		require.Contains(t, string(out), "filecopy: ", args)
	}
}
