package dpu

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
)

// TestDPU boots once for all that follows.
func TestDPU(t *testing.T) {
	b := boot(t)
	t.Run("sides", b.sides)
	t.Run("wrong program", b.wrongProgram)
	t.Run("pingpong", b.pingpong)
	t.Run("blocks", b.blocks)
	t.Run("suite", b.suite)
	t.Run("offload", b.offload)
}

// sides: each VM's inventory says where it runs, and what proves it.
func (b *bed) sides(t *testing.T) {
	look := func(host int) *dpu.Inventory {
		inv := &dpu.Inventory{}
		require.NoError(t, json.Unmarshal([]byte(b.run(t, host, "zrdma", "devices", "--tree", "--json")), inv))
		require.Len(t, inv.RDMA, 1)
		require.Equal(t, "rxe0", inv.RDMA[0].Name)
		return inv
	}
	soc := look(onDPU)
	require.Equal(t, "arm64", soc.Arch)
	require.Equal(t, dpu.DMI{Vendor: "https://www.mellanox.com", Product: board, Board: board, Serial: serial}, soc.DMI)
	require.Equal(t, dpu.OnSoC, soc.Side.Value)
	require.Equal(t, dpu.FromDMI, soc.Side.Evidence[0].Source)
	t.Log("DPU:", soc.Side.Value, "by", soc.Side.Evidence[0])
	// A host without a card proves nothing of its side.
	host := look(onHost)
	require.Equal(t, "amd64", host.Arch)
	require.NotEqual(t, dpu.OnSoC, host.Side.Value)
	t.Log("host:", host.Side)
	for name, want := range host.RDMA[0].Caps.List() {
		require.Equal(t, want.Answer, soc.RDMA[0].Caps.List()[name].Answer, "%s: rxe must not differ by architecture", want.Name)
	}
}

// wrongProgram: the error says why, and what stands where works.
func (b *bed) wrongProgram(t *testing.T) {
	err := b.Host(onDPU).Command(b.ctx, b.binary(t, onHost, "zrdma"), "--help").Run()
	require.ErrorContains(t, err, "it is a program for EM_X86_64, and this host is arm64")
	out, err := b.Host(onDPU).Command(b.ctx, "sh", "-c", "uname -m; echo $SOFTROCE_ARCH; pwd").Output()
	require.NoError(t, err)
	dir, err := os.Getwd()
	require.NoError(t, err)
	require.Equal(t, "aarch64\narm64\n"+dir+"\n", string(out))
}

// pingpong: messages between the architectures, all bytes compared, in both
// directions, ours and the C program.
func (b *bed) pingpong(t *testing.T) {
	for _, x := range []struct{ server, client, size int }{
		{onHost, onDPU, 64}, {onDPU, onHost, 4096}, {onDPU, onStore, 65536}, {onStore, onDPU, 1 << 20},
	} {
		flags := []string{"-d", "rxe0", "-e", "-c", "-m", "4096", "-n", "20", "-s", fmt.Sprint(x.size)}
		s := b.background(t, x.server, "pingpong", flags...)
		time.Sleep(time.Second) // it does not say that it listens
		out := b.run(t, x.client, "pingpong", append(flags, b.Host(x.server).IP(0))...)
		require.NoError(t, <-s.done, s.out.String())
		s.once.Do(func() {})
		t.Logf("%s to %s, %d bytes: %s", b.Host(x.client).Arch(), b.Host(x.server).Arch(), x.size, strings.Join(lines(out, "us each"), " "))
	}
	c := b.Host(onDPU).Command(b.ctx, "ibv_rc_pingpong", "-d", "rxe0", "-g", "1", "-e", "-c", "-n", "20")
	require.NoError(t, c.Start())
	time.Sleep(time.Second)
	b.run(t, onHost, "pingpong", "-d", "rxe0", "-e", "-c", "-n", "20", b.Host(onDPU).IP(0))
	require.NoError(t, c.Wait())
}

// blocks: package rpc from one architecture to the other.
func (b *bed) blocks(t *testing.T) {
	for _, x := range [][2]int{{onDPU, onHost}, {onStore, onDPU}} {
		server, client := x[0], x[1]
		addr := b.Host(server).IP(0) + ":7471"
		s := b.background(t, server, "blockstore", "serve", "--dir", "/tmp/blocks", "--listen", addr)
		s.says(t, "serving")
		out := b.run(t, client, "blockstore", "load", "--server", addr, "--blocks", "20", "--max", "262144", "--seed", "1", "--quiet")
		require.Contains(t, out, "leaked 0")
		t.Logf("%s client, %s server: %s", b.Host(client).Arch(), b.Host(server).Arch(), strings.Join(lines(out, "verified"), " "))
		s.end()
	}
}

// core are cases of the verbs suite for the architecture: layouts that cross to C,
// byte order, atomics, ordering of memory between processors, windows, the
// connection manager, collection while the device writes.
const core = "TestVerbs/(D04|D05|D06|D10|D12|M01|M05|M09|W03|W04|W05|C04|C05|C09|E01|E03|Q01|Q06|Q15|S01|S02|S03|S04|S05|R01|R02|R04|A01|B01|U01|U06|X01|N02|N06|K01|Z01|Z03)"

func (b *bed) suite(t *testing.T) {
	cmd := b.Host(onDPU).Command(b.ctx, b.binary(t, onDPU, "suite.test"), "-test.v", "-test.run", core, "-test.timeout", "4m")
	cmd.Env = append(os.Environ(), "ZRDMA_TEST_DEVICE=rxe0")
	text, err := cmd.Output()
	out := string(text)
	require.NoError(t, err, out)
	n := len(lines(out, "--- PASS: TestVerbs/"))
	t.Logf("%d cases passed", n)
	require.GreaterOrEqual(t, n, 10, "the pattern finds no cases any more\n%s", out)
	require.Empty(t, lines(out, "--- SKIP"), out)
}
