package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/dpu/doctor"
)

const (
	pciDir = "sys/devices/pci0000:97/0000:98:00.0"
	mstDPU = `Configurations:                              Next Boot
        INTERNAL_CPU_MODEL                   EMBEDDED_CPU(1)
        INTERNAL_CPU_PAGE_SUPPLIER           ECPF(0)
        INTERNAL_CPU_OFFLOAD_ENGINE          ENABLED(0)
`
)

// bluefield is a folder that has a BlueField-3 as its host sees it.
func bluefield(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for p, v := range map[string]string{
		pciDir + "/vendor": "0x15b3", pciDir + "/device": "0xa2dc", pciDir + "/class": "0x020000",
		pciDir + "/numa_node": "1", pciDir + "/sriov_totalvfs": "16",
		pciDir + "/net/ens3f0np0/address":           "a0:88:c2:0c:d4:52",
		pciDir + "/infiniband/mlx5_0/fw_ver":        "32.43.1014",
		pciDir + "/infiniband/mlx5_0/ports/1/state": "4: ACTIVE",
	} {
		file := filepath.Join(root, p)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(v+"\n"), 0o600))
	}
	for link, target := range map[string]string{
		"sys/bus/pci/devices/0000:98:00.0": "../../../devices/pci0000:97/0000:98:00.0",
		"sys/class/net/ens3f0np0":          "../../devices/pci0000:97/0000:98:00.0/net/ens3f0np0",
		"sys/class/infiniband/mlx5_0":      "../../devices/pci0000:97/0000:98:00.0/infiniband/mlx5_0",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, link)), 0o700))
		require.NoError(t, os.Symlink(target, filepath.Join(root, link)))
	}
	return root
}

func run(t *testing.T, want int, args ...string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	require.Equal(t, want, Main(args, &out, &errOut), "%s%s", out.String(), errOut.String())
	return out.String() + errOut.String()
}

func TestInventoryTable(t *testing.T) {
	out := run(t, ExitOK, "devices", "--root", bluefield(t))
	require.Contains(t, out, "CARD  FAMILY       MODEL    SERIAL   PSID     FIRMWARE    MODE\n0     BlueField-3  unknown  unknown  unknown  32.43.1014  unknown\n")
	require.Contains(t, out, "0     0000:98:00.0  pf    mlx5_0  ens3f0np0  -            -        1     -\n")
}

func TestInventoryTree(t *testing.T) {
	root := bluefield(t)
	mst := filepath.Join(root, "mst.txt")
	require.NoError(t, os.WriteFile(mst, []byte(mstDPU), 0o600))
	out := run(t, ExitOK, "devices", "--root", root, "--tree", "--mstconfig", "0000:98:00.0="+mst)
	require.Contains(t, out, `
└─ card BlueField-3 (NVIDIA (Mellanox)), model unknown, serial unknown, PSID unknown, firmware 32.43.1014, mode dpu
   └─ 0000:98:00.0 pf, RDMA mlx5_0, netdev ens3f0np0, a0:88:c2:0c:d4:52, NUMA 1
      └─ RDMA device mlx5_0
         └─ port 1 active, , 0 GIDs
`)
	require.NotContains(t, out, "<-")
	out = run(t, ExitOK, "devices", "--root", root, "--tree", "--evidence", "--mstconfig", "0000:98:00.0="+mst)
	require.Contains(t, out, "mode dpu <- mstconfig 0000:98:00.0: INTERNAL_CPU_OFFLOAD_ENGINE=ENABLED")
	require.Contains(t, out, "(of the next boot)")
}

func TestInventoryJSONAndPair(t *testing.T) {
	root := bluefield(t)
	var inv dpu.Inventory
	require.NoError(t, json.Unmarshal([]byte(run(t, ExitOK, "devices", "--root", root, "--tree", "--json")), &inv))
	require.Equal(t, "mlx5_0", inv.Cards[0].Functions[0].RDMA.Value)

	// The other side: a card that knows this host's PF by its address.
	e := []dpu.Evidence{{Source: dpu.FromDevlink, Where: "pci/0000:03:00.0/196608", Says: "x"}}
	soc := dpu.Inventory{Cards: []dpu.Card{{Functions: []dpu.Function{{Remote: true,
		MAC:         dpu.Claim[string]{Value: "a0:88:c2:0c:d4:52", Evidence: e},
		Representor: dpu.Claim[string]{Value: "pf0hpf", Evidence: e},
		Kind:        dpu.Claim[dpu.Kind]{Value: dpu.PF, Evidence: e}}}}}}
	b, err := json.Marshal(soc)
	require.NoError(t, err)
	file := filepath.Join(root, "soc.json")
	require.NoError(t, os.WriteFile(file, b, 0o600))
	out := run(t, ExitOK, "devices", "--root", root, "--pair", file)
	require.Contains(t, out, "0000:98:00.0 = behind pf0hpf: devlink")

	require.NoError(t, os.WriteFile(file, []byte(`{"cards":[{}]}`), 0o600))
	require.Contains(t, run(t, ExitFailed, "devices", "--root", root, "--pair", file), "no card")
	require.NoError(t, os.WriteFile(file, []byte(`[`), 0o600))
	run(t, ExitUsage, "devices", "--root", root, "--pair", file)
	run(t, ExitUsage, "devices", "--root", root, "--pair", file+".none")
	run(t, ExitUsage, "devices", "--mstconfig", "0000:98:00.0")
	run(t, ExitUsage, "devices", "--mstconfig", "0000:98:00.0="+file+".none")
	require.Contains(t, run(t, ExitFailed, "devices", "--mstconfig", "mlx5_0="+file), "no PCI address")
}

func TestCapabilities(t *testing.T) {
	// An address that no other test has.
	f := deviceFlags{caps: true, evidence: true, soft: "soft:127.7.2.9"}
	var buf bytes.Buffer
	require.NoError(t, f.run(t.Context(), &buf))
	out := buf.String()
	require.Regexp(t, `(?m)^CAPABILITY .*soft:127\.7\.2\.9$`, out)
	require.Regexp(t, `(?m)^mw_type_2b .*yes$`, out)
	require.Regexp(t, `(?m)^cross_gvmi .*no$`, out)
	require.Contains(t, out, "soft:127.7.2.9 xrc: no: ")
}

func TestDoctor(t *testing.T) {
	root := bluefield(t)
	out := run(t, ExitFailed, "doctor", "--root", root)
	require.Contains(t, out, "broken  modules: ib_uverbs: ")
	require.Contains(t, out, "        mend: modprobe ib_uverbs\n")
	require.NotContains(t, out, "zrdma doctor: failed", "the findings say it")

	var found []doctor.Finding
	require.NoError(t, json.Unmarshal([]byte(run(t, ExitFailed, "doctor", "--root", root, "--json")), &found))
	require.Equal(t, doctor.Broken, found[0].Level)
	run(t, ExitUsage, "doctor", "--watch", "-1")
	run(t, ExitUsage, "doctor", "now")
}

func TestFindingsPrinted(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, printFindings(&out, nil))
	require.Contains(t, out.String(), "Nothing is wrong")
}
