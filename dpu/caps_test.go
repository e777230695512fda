package dpu

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

// answers is the table of a device's capabilities.
func answers(c *Capabilities) map[string]Answer {
	m := map[string]Answer{}
	for _, x := range c.List() {
		m[x.Name] = x.Answer
	}
	return m
}

func TestSoftCapabilities(t *testing.T) {
	c, err := ProbeDevice(context.Background(), "soft:127.6.1.1")
	require.NoError(t, err)
	for _, x := range c.List() {
		require.NotEmpty(t, x.How, x.Name)
		t.Logf("%s %s: %s", x.Name, x.Answer, x.How)
	}
	require.Equal(t, softWant, answers(c))
}

// In the VM of test/softroce, with ZRDMA_DEVICE=rxe0.
func TestRXECapabilities(t *testing.T) {
	name := os.Getenv(verbs.EnvDevice)
	if !strings.HasPrefix(name, "rxe") {
		t.Skip("no rxe device: ZRDMA_DEVICE names none")
	}
	c, err := ProbeDevice(context.Background(), name)
	require.NoError(t, err)
	for _, x := range c.List() {
		t.Logf("%s %s: %s", x.Name, x.Answer, x.How)
	}
	want := rxeWant(t)
	require.Equal(t, want, answers(c))

	inv, err := Discover(context.Background(), Config{})
	require.NoError(t, err)
	t.Log(brief(inv), inv.Warnings)
	f := inv.Function(name)
	require.NotNil(t, f)
	require.Equal(t, Software, f.Kind.Value)
	require.NotEmpty(t, f.Netdev.Value)
	require.Equal(t, want, answers(inv.RDMA[0].Caps))
}

func TestProbeStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := ProbeDevice(ctx, "soft:127.6.1.2")
	require.ErrorIs(t, err, context.Canceled)
	_, err = ProbeDevice(context.Background(), "no_such_device")
	require.Error(t, err)
}

func TestAttributeOverrulesObject(t *testing.T) {
	for _, c := range []struct {
		a        Answer
		reported bool
		want     Answer
	}{{Yes, true, Yes}, {Yes, false, No}, {No, true, No}, {No, false, No}, {Undecided, true, Undecided}, {Undecided, false, No}} {
		require.Equal(t, c.want, Capability{c.a, "x"}.and(c.reported, "y").Answer, "%v", c)
	}
}

// The software device does more than rxe in two: timestamps, and memory of a descriptor.
var softWant = map[string]Answer{
	"mw_type_1": Yes, "mw_type_2b": Yes, "odp": No, "dma_buf": Yes, "device_memory": No, "atomics": Yes,
	"relaxed_ordering": Undecided, "atomic_write": No, "flush": No, "xrc": No, "tag_matching": No, "timestamps": Yes, "cross_gvmi": No,
}

// rxeWant is the table of rxe with rdma-core 44, which has no flush.
func rxeWant(t *testing.T) map[string]Answer {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	require.NoError(t, err)
	var major, minor int
	_, err = fmt.Sscanf(string(b), "%d.%d", &major, &minor)
	require.NoError(t, err)
	m := map[string]Answer{
		"mw_type_1": Yes, "mw_type_2b": Yes, "odp": No, "dma_buf": No, "device_memory": No, "atomics": Yes,
		"relaxed_ordering": Undecided, "atomic_write": No, "flush": No, "xrc": No, "tag_matching": No, "timestamps": No, "cross_gvmi": No,
	}
	if major > 6 || major == 6 && minor >= 2 {
		m["atomic_write"] = Yes // new in 6.2
	}
	return m
}
