package dpu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func discover(t testing.TB, name string) *Inventory {
	t.Helper()
	inv, err := Discover(context.Background(), load(t, name))
	require.NoError(t, err)
	return inv
}

// brief is an inventory in one line for every statement.
func brief(inv *Inventory) string {
	var b strings.Builder
	fmt.Fprintf(&b, "side=%v\n", inv.Side)
	for i := range inv.Cards {
		c := &inv.Cards[i]
		fmt.Fprintf(&b, "card %v|%v|%v|sn=%v|pn=%v|psid=%v|fw=%v|guid=%v|mode=%v\n",
			c.Vendor, c.Family, c.Model, c.Serial, c.PartNumber, c.PSID, c.Firmware, c.SysImageGUID, c.Mode)
		for _, f := range c.Functions {
			b.WriteString("  " + briefFunc(&f))
		}
	}
	for _, f := range inv.Loose {
		b.WriteString("loose " + briefFunc(&f))
	}
	return b.String()
}

func briefFunc(f *Function) string {
	s := fmt.Sprintf("%s kind=%v", f.Name(), f.Kind)
	add := func(k, v string) {
		if v != "unknown" {
			s += " " + k + "=" + v
		}
	}
	add("ctrl", f.Controller.String())
	add("pf", f.PFNumber.String())
	add("n", f.Number.String())
	add("rdma", f.RDMA.String())
	add("net", f.Netdev.String())
	add("mac", f.MAC.String())
	add("rep", f.Representor.String())
	add("sw", f.SwitchID.String())
	add("esw", f.Eswitch.String())
	add("numa", f.NUMA.String())
	add("drv", f.Driver.String())
	return s + "\n"
}

func TestDiscoverFixtures(t *testing.T) {
	for name, want := range fixtureWant {
		t.Run(name, func(t *testing.T) {
			inv := discover(t, name)
			require.Equal(t, strings.TrimLeft(want, "\n"), brief(inv))
			require.Empty(t, inv.Warnings)
			everyClaimHasEvidence(t, inv)
		})
	}
}

// everyClaimHasEvidence reads the JSON, so that no field is forgotten: a value
// that is not null has evidence, and evidence is complete.
func everyClaimHasEvidence(t *testing.T, inv *Inventory) {
	t.Helper()
	b, err := json.Marshal(inv)
	require.NoError(t, err)
	var v any
	require.NoError(t, json.Unmarshal(b, &v))
	n := 0
	var walk func(any)
	walk = func(v any) {
		switch x := v.(type) {
		case []any:
			for _, e := range x {
				walk(e)
			}
		case map[string]any:
			if val, ok := x["value"]; ok {
				n++
				ev, _ := x["evidence"].([]any)
				require.Equal(t, val != nil, len(ev) > 0, "%v", x)
				for _, e := range ev {
					m := e.(map[string]any)
					require.NotEmpty(t, m["source"])
					require.NotEmpty(t, m["where"])
					require.NotEmpty(t, m["says"], "%v", x)
				}
				return
			}
			for _, e := range x {
				walk(e)
			}
		}
	}
	walk(v)
	require.NotZero(t, n)

	var back Inventory
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, brief(inv), brief(&back))
}

func TestDiscoverBroken(t *testing.T) {
	inv := discover(t, "broken")
	require.Len(t, inv.Cards, 2)
	c := inv.Cards[0]
	require.False(t, c.Mode.Known(), "an id proves no mode")
	require.False(t, c.Serial.Known())
	f := c.Functions[0]
	require.False(t, f.NUMA.Known())
	require.False(t, f.Kind.Known())
	require.False(t, f.MAC.Known())
	require.False(t, f.Driver.Known(), "a link that leaves the tree")
	all := strings.Join(inv.Warnings, "\n")
	for _, want := range []string{`"nineteen" is no number`, "not text", "vital product data", `"fish" is no PCI id`, "0000:04:00.0/device"} {
		require.Contains(t, all, want)
	}
	for _, d := range inv.RDMA {
		require.NotEqual(t, "gone", d.Name)
	}
}

func TestDiscoverRefuses(t *testing.T) {
	ctx := context.Background()
	_, err := Discover(ctx, Config{Root: filepath.Join(t.TempDir(), "none")})
	require.ErrorIs(t, err, os.ErrNotExist)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = Discover(ctx, Config{Root: file})
	require.ErrorContains(t, err, "not a folder")
	_, err = Discover(ctx, Config{Root: t.TempDir(), Mstconfig: map[string]string{"mt4129_pciconf0": ""}})
	require.ErrorContains(t, err, "0000:03:00.0")
	done, cancel := context.WithCancel(ctx)
	cancel()
	_, err = Discover(done, Config{Root: t.TempDir()})
	require.ErrorIs(t, err, context.Canceled)
}

func TestSourcesThatFailAreWarnings(t *testing.T) {
	cfg := load(t, "bluefield3-host")
	cfg.Devlink = func(context.Context) ([]DevlinkDevice, error) { return nil, errors.New("devlink is out") }
	cfg.RDMALinks = func(context.Context) ([]RDMALink, error) { return nil, errors.New("netlink is out") }
	cfg.DMI = func() (DMI, error) { return DMI{}, errors.New("no table") }
	cfg.VPD = func(string) ([]byte, error) { return nil, errors.New("EIO") }
	cfg.Probe = func(context.Context, string) (*Capabilities, error) { return nil, errors.New("no access") }
	cfg.Mstconfig["0000:98:00.0"] = "-E- Failed to open the device"
	inv, err := Discover(context.Background(), cfg)
	require.NoError(t, err)
	all := strings.Join(inv.Warnings, "\n")
	for _, want := range []string{"devlink is out", "netlink is out", "no table", "EIO", "no access", "no parameters"} {
		require.Contains(t, all, want)
	}
	require.False(t, inv.Cards[0].Serial.Known())
	require.False(t, inv.Cards[0].Mode.Known())
}

func TestContradictionsAreWarnings(t *testing.T) {
	cfg := load(t, "bluefield3-soc")
	cfg.RDMALinks = func(context.Context) ([]RDMALink, error) {
		return []RDMALink{{Name: "mlx5_0", Firmware: "1.2.3", SysImageGUID: "a088:c203:000c:d452"}, {Name: "not_in_sysfs"}}, nil
	}
	cfg.RDMAOf = func(dev string) []string {
		if dev == "mlx5_core.sf.2" {
			return []string{"mlx5_9"}
		}
		return nil
	}
	// The text of another card: the ECPF proves otherwise, and stays.
	cfg.Mstconfig["0000:03:00.0"] = strings.ReplaceAll(load(t, "bluefield3-host").Mstconfig["0000:98:00.0"], "ENABLED(0)", "DISABLED(1)")
	inv, err := Discover(context.Background(), cfg)
	require.NoError(t, err)
	require.Len(t, inv.Warnings, 3, "%q", inv.Warnings)
	require.Contains(t, inv.Warnings[0], `"1.2.3" in RDMA netlink`)
	require.Contains(t, inv.Warnings[1], "rdmamap says mlx5_9")
	require.Contains(t, inv.Warnings[2], "mstconfig says nic")
	require.Equal(t, ModeDPU, inv.Cards[0].Mode.Value)
}

// A BlueField is a DPU by no id, no name and no driver.
func TestModeIsNeverGuessed(t *testing.T) {
	cfg := load(t, "bluefield3-host")
	cfg.Mstconfig = nil
	inv, err := Discover(context.Background(), cfg)
	require.NoError(t, err)
	require.True(t, inv.Cards[0].IsDPUFamily())
	require.Equal(t, "unknown", inv.Cards[0].Mode.String())
	require.Equal(t, OnHost, inv.Side.Value)

	cfg.Arch = "arm64" // a Grace host, or the SoC of a card: the DMI says neither
	inv, err = Discover(context.Background(), cfg)
	require.NoError(t, err)
	require.False(t, inv.Side.Known())
}

func TestPorts(t *testing.T) {
	p := discover(t, "rxe").RDMA[0].Ports[0]
	require.Equal(t, Port{Number: 1, State: "ACTIVE", LinkLayer: "Ethernet", Netdev: "eth0", GIDs: []GID{
		{0, "fe80:0000:0000:0000:5054:00ff:fe12:3456", "RoCE v2", "eth0"},
		{1, "0000:0000:0000:0000:0000:ffff:0a4d:0001", "RoCE v2", "eth0"},
	}}, p)
	require.Len(t, discover(t, "bluefield2-host").RDMA[0].Ports[0].GIDs, 1, "a GID of zeros is an empty slot")
}

func TestDevicesThatVanish(t *testing.T) {
	cfg := load(t, "bluefield3-soc")
	cfg.RDMALinks = func(context.Context) ([]RDMALink, error) {
		return nil, os.RemoveAll(filepath.Join(cfg.Root, "sys/devices/pci0000:00"))
	}
	inv, err := Discover(context.Background(), cfg)
	require.NoError(t, err)
	require.Empty(t, inv.RDMA)
}

func TestLive(t *testing.T) {
	inv, err := Discover(context.Background(), Config{NoProbe: true})
	require.NoError(t, err)
	everyClaimHasEvidence(t, inv)
	t.Log(brief(inv), inv.Warnings)
}
