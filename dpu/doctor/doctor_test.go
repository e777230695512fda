package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/dpu/internal/fixture"
)

// healthy has everything that RDMA needs: no check objects to it.
const healthy = `
-- tree --
$F = sys/devices/pci0000:97/0000:97:01.0/0000:98:00.0
$F/vendor = 0x15b3
$F/device = 0xa2dc
$F/class = 0x020000
$F/numa_node = 1
$F/sriov_totalvfs = 16
$F/current_link_speed = 16.0 GT/s PCIe
$F/max_link_speed = 16.0 GT/s PCIe
$F/current_link_width = 16
$F/max_link_width = 16
$F/iommu_group/type = identity
$F/driver -> ../../../../bus/pci/drivers/mlx5_core
$F/net/ens3f0np0/address = a0:88:c2:0c:d4:52
$F/net/ens3f0np0/mtu = 9000
$F/net/ens3f0np0/ecn/roce_np/enable/3 = 1
$F/net/ens3f0np0/ecn/roce_np/enable/4 = 0
$F/net/ens3f0np0/ecn/roce_rp/enable/3 = 1
$F/net/ens3f0np0/qos/pfc = 0,0,0,1,0,0,0,0
$P = sys/devices/pci0000:97/0000:97:01.0/0000:98:00.0/infiniband/mlx5_0/ports/1
$P/state = 4: ACTIVE
$P/link_layer = Ethernet
$P/gids/0 = fe80:0000:0000:0000:a288:c2ff:fe0c:d452
$P/gids/1 = 0000:0000:0000:0000:0000:ffff:0a00:0001
$P/gid_attrs/types/0 = IB/RoCE v1
$P/gid_attrs/types/1 = RoCE v2
$P/gid_attrs/ndevs/0 = ens3f0np0
$P/hw_counters/out_of_sequence = 0
$P/hw_counters/np_cnp_sent = 0
$P/hw_counters/lifespan = 10
$P/counters/port_rcv_data = 123456
sys/class/infiniband_verbs/uverbs0/
sys/class/misc/rdma_cm/
sys/module/ib_uverbs/
dev/infiniband/uverbs0 = x
dev/infiniband/rdma_cm = x
sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages = 512
sys/devices/system/node/node0/cpulist = 0-31
sys/devices/system/node/node1/cpulist = 32-63
proc/self/status = Name:	x\nCpus_allowed_list:	0-63
-- mstconfig 0000:98:00.0 --
Configurations:                              Next Boot
        INTERNAL_CPU_MODEL                   EMBEDDED_CPU(1)
        INTERNAL_CPU_PAGE_SUPPLIER           ECPF(0)
        INTERNAL_CPU_OFFLOAD_ENGINE          ENABLED(0)
`

const (
	fn   = "sys/devices/pci0000:97/0000:97:01.0/0000:98:00.0"
	port = fn + "/infiniband/mlx5_0/ports/1"
	net0 = fn + "/net/ens3f0np0"
)

func config(m *fixture.Machine) Config {
	return Config{
		Root:     m.Root,
		Discover: dpu.Config{Arch: m.Arch, Mstconfig: m.Mstconfig},
		Memlock:  func() (Limit, error) { return Limit{Unlimited: true}, nil },
	}
}

func TestHealthy(t *testing.T) {
	found, err := Examine(context.Background(), config(fixture.Make(t, healthy)))
	require.NoError(t, err)
	require.Empty(t, found)
}

func TestFindings(t *testing.T) {
	remove := func(p string) func(*fixture.Machine, *Config) {
		return func(m *fixture.Machine, _ *Config) {
			require.NoError(t, os.RemoveAll(filepath.Join(m.Root, p)))
		}
	}
	write := func(p, v string) func(*fixture.Machine, *Config) {
		return func(m *fixture.Machine, _ *Config) { m.Write(p, v) }
	}
	limit := func(n uint64) func(*fixture.Machine, *Config) {
		return func(_ *fixture.Machine, c *Config) {
			c.Memlock = func() (Limit, error) { return Limit{Bytes: n}, nil }
		}
	}
	opens := func(err error) func(*fixture.Machine, *Config) {
		return func(_ *fixture.Machine, c *Config) {
			c.Open = func(p string) error {
				if strings.HasSuffix(p, "uverbs0") {
					return &fs.PathError{Op: "open", Path: p, Err: err}
				}
				return nil
			}
		}
	}
	mst := func(from, to string) func(*fixture.Machine, *Config) {
		return func(m *fixture.Machine, _ *Config) {
			m.Mstconfig["0000:98:00.0"] = strings.ReplaceAll(m.Mstconfig["0000:98:00.0"], from, to)
		}
	}
	for name, c := range map[string]struct {
		change  func(*fixture.Machine, *Config)
		level   Level
		check   string
		subject string
		mend    string
	}{
		"uverbs missing": {func(m *fixture.Machine, c *Config) {
			remove("sys/module/ib_uverbs")(m, c)
			remove("sys/class/infiniband_verbs")(m, c)
		}, Broken, "modules", "ib_uverbs", "modprobe ib_uverbs"},
		"cm missing":         {remove("sys/class/misc"), Broken, "modules", "rdma_ucm", "modprobe rdma_ucm"},
		"no right to a node": {opens(fs.ErrPermission), Broken, "permissions", "/dev/infiniband/uverbs0", "udev"},
		"no node":            {remove("dev/infiniband/uverbs0"), Broken, "permissions", "/dev/infiniband/uverbs0", "udevadm"},
		"node fails":         {opens(errors.New("EIO")), Broken, "permissions", "/dev/infiniband/uverbs0", "dmesg"},
		"64 KiB locked":      {limit(64 << 10), Broken, "locked-memory", "RLIMIT_MEMLOCK", "ulimit -l"},
		"8 MiB locked":       {limit(8 << 20), Slow, "locked-memory", "RLIMIT_MEMLOCK", "LimitMEMLOCK=infinity"},
		"no huge pages":      {write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0"), Note, "huge-pages", "/sys/kernel/mm/hugepages", "nr_hugepages=512"},
		"port down":          {write(port+"/state", "1: DOWN"), Broken, "port", "mlx5_0 port 1", "ip link set ens3f0np0 up"},
		"MTU 1500":           {write(net0+"/mtu", "1500"), Slow, "mtu", "ens3f0np0", "mtu 9000"},
		"MTU 300":            {write(net0+"/mtu", "300"), Broken, "mtu", "ens3f0np0", "mtu 1500"},
		"no IPv4 GID": {func(m *fixture.Machine, c *Config) {
			remove(port+"/gids/1")(m, c)
			write(port+"/gid_attrs/types/0", "RoCE v2")(m, c)
		}, Note, "gids", "mlx5_0 port 1", "ip addr add"},
		"no RoCE v2":          {write(port+"/gid_attrs/types/1", "IB/RoCE v1"), Broken, "gids", "mlx5_0 port 1", "cma_roce_mode"},
		"ECN off":             {write(net0+"/ecn/roce_np/enable/3", "0"), Slow, "ecn", "ens3f0np0", "ecn/roce_np/enable/PRIORITY"},
		"PFC off":             {write(net0+"/qos/pfc", "0,0,0,0,0,0,0,0"), Slow, "pfc", "ens3f0np0", "mlnx_qos"},
		"wrong NUMA node":     {write("proc/self/status", "Cpus_allowed_list:\t0-3,8"), Slow, "numa", "mlx5_0", "numactl --cpunodebind=1"},
		"narrow slot":         {write(fn+"/current_link_width", "8"), Slow, "pcie", "0000:98:00.0", "lspci"},
		"slow slot":           {write(fn+"/current_link_speed", "8.0 GT/s PCIe"), Slow, "pcie", "0000:98:00.0", "lspci"},
		"translated":          {write(fn+"/iommu_group/type", "DMA-FQ"), Slow, "iommu", "0000:98:00.0", "iommu=pt"},
		"mode unknown":        {func(m *fixture.Machine, _ *Config) { delete(m.Mstconfig, "0000:98:00.0") }, Note, "mode", "0000:98:00.0", "mstconfig -d 0000:98:00.0 query"},
		"NIC mode":            {mst("ENABLED(0)", "DISABLED(1)"), Note, "mode", "0000:98:00.0", "INTERNAL_CPU_OFFLOAD_ENGINE=0"},
		"separated host":      {mst("EMBEDDED_CPU(1)", "SEPARATED_HOST(0)"), Note, "mode", "0000:98:00.0", "INTERNAL_CPU_MODEL=1"},
		"a counter":           {write(port+"/hw_counters/out_of_sequence", "7"), Note, "counters", "mlx5_0 port 1", "--watch"},
		"garbage in sysfs":    {write(fn+"/numa_node", "many"), Note, "inventory", "inventory", "--evidence"},
		"counter not counted": {write(port+"/hw_counters/lifespan", "99"), "", "", "", ""},
		"counter is garbage":  {write(port+"/hw_counters/out_of_sequence", "-"), "", "", "", ""},
		"limit not readable": {func(_ *fixture.Machine, c *Config) {
			c.Memlock = func() (Limit, error) { return Limit{}, errors.New("no") }
		}, "", "", "", ""},
		"affinity is garbage": {write("proc/self/status", "Cpus_allowed_list:\tall"), "", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := fixture.Make(t, healthy)
			cfg := config(m)
			c.change(m, &cfg)
			cfg.Discover.Mstconfig = m.Mstconfig
			found, err := Examine(context.Background(), cfg)
			require.NoError(t, err)
			if c.check == "" {
				require.Empty(t, found)
				return
			}
			require.Len(t, found, 1, "%+v", found)
			f := found[0]
			require.Equal(t, []any{c.level, c.check, c.subject}, []any{f.Level, f.Check, f.Subject})
			require.Contains(t, f.Mend, c.mend)
			require.NotEmpty(t, f.What)
		})
	}
}

func TestDriverWithoutItsRDMAPart(t *testing.T) {
	m := fixture.Make(t, healthy)
	require.NoError(t, os.RemoveAll(filepath.Join(m.Root, fn, "infiniband")))
	found, err := Examine(context.Background(), config(m))
	require.NoError(t, err)
	require.Len(t, found, 2)
	require.Equal(t, "modprobe mlx5_ib", found[0].Mend)
	require.Contains(t, found[1].Mend, "rdma_rxe")
}

func TestCountersThatGrow(t *testing.T) {
	m := fixture.Make(t, healthy)
	m.Write(port+"/hw_counters/np_cnp_sent", "40") // old, and not growing
	cfg := config(m)
	cfg.Watch = time.Hour
	cfg.Sleep = func(_ context.Context, d time.Duration) error {
		require.Equal(t, time.Hour, d)
		m.Write(port+"/hw_counters/out_of_sequence", "12")
		return nil
	}
	found, err := Examine(context.Background(), cfg)
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, Slow, found[0].Level)
	require.Contains(t, found[0].What, "out_of_sequence grew by 12 in 1h0m0s")
	require.Contains(t, found[0].Mend, "ethtool -S ens3f0np0 ")

	ctx, cancel := context.WithCancel(context.Background())
	cfg.Sleep = nil
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err = Examine(ctx, cfg)
	require.ErrorIs(t, err, context.Canceled)
	cfg.Watch = -1
	_, err = Examine(context.Background(), cfg)
	require.ErrorContains(t, err, "backwards")
}

func TestEmptyMachine(t *testing.T) {
	found, err := Examine(context.Background(), config(fixture.Make(t, "-- tree --\nsys/class/net/\n")))
	require.NoError(t, err)
	require.Len(t, found, 2)
	for _, f := range found {
		require.Equal(t, Broken, f.Level)
		require.NotEmpty(t, f.Mend)
	}
}

func TestWorstFirst(t *testing.T) {
	m := fixture.Make(t, healthy)
	m.Write(net0+"/mtu", "1500")
	m.Write(port+"/state", "1: DOWN")
	delete(m.Mstconfig, "0000:98:00.0")
	found, err := Examine(context.Background(), config(m))
	require.NoError(t, err)
	require.Equal(t, []Level{Broken, Slow, Note}, []Level{found[0].Level, found[1].Level, found[2].Level})
}

func FuzzCPUs(f *testing.F) {
	f.Add("0-3,8")
	f.Add("5-1")
	f.Fuzz(func(t *testing.T, s string) {
		m, ok := cpus(s)
		require.Equal(t, ok, len(m) > 0)
	})
}
