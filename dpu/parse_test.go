package dpu

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu/internal/fixture"
)

var goodVPD = fixture.VPD("ID BlueField-2 DPU\nPN MBF2H332A\nSN MT2133X01234\n")

func TestParseVPD(t *testing.T) {
	v, err := ParseVPD(goodVPD)
	require.NoError(t, err)
	require.Equal(t, VPD{"BlueField-2 DPU", map[string]string{"PN": "MBF2H332A", "SN": "MT2133X01234"}}, v)

	_, err = ParseVPD(append([]byte{0x79, 0}, goodVPD...)) // an end tag with a length is still passed over
	require.Error(t, err, "its checksum counts the bytes before it")

	bad := bytes.Clone(goodVPD)
	bad[5] ^= 1
	v, err = ParseVPD(bad)
	require.ErrorContains(t, err, "checksum")
	require.Empty(t, v.Fields)
	require.Empty(t, v.Product)

	for n := range len(goodVPD) {
		_, err := ParseVPD(goodVPD[:n])
		require.ErrorIs(t, err, errVPD, n)
	}
	// A keyword that is longer than its section.
	_, err = ParseVPD([]byte{vpdR, 4, 0, 'S', 'N', 200, 'x', vpdEnd})
	require.ErrorContains(t, err, `keyword "SN"`)
}

func FuzzParseVPD(f *testing.F) {
	f.Add(goodVPD)
	f.Add([]byte{vpdR, 3, 0, 'R', 'V', 0, vpdEnd})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, _ := ParseVPD(b)
		total := len(v.Product)
		for k, s := range v.Fields {
			require.Len(t, k, 2)
			require.NotEmpty(t, s)
			total += len(s)
		}
		require.LessOrEqual(t, total, len(b))
	})
}

const mstTable = `Device type:    BlueField3
Device:         0000:03:00.0
Configurations:                              Next Boot
        INTERNAL_CPU_MODEL                   EMBEDDED_CPU(1)
        INTERNAL_CPU_PAGE_SUPPLIER           ECPF(0)
        INTERNAL_CPU_ESWITCH_MANAGER         ECPF(0)
        INTERNAL_CPU_IB_VPORT0               ECPF(0)
        INTERNAL_CPU_OFFLOAD_ENGINE          ENABLED(0)
`

func TestMstconfigMode(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string
		want     Mode
	}{
		"dpu":             {"", "", ModeDPU},
		"nic, BlueField3": {"ENABLED(0)", "DISABLED(1)", ModeNIC},
		"separated":       {"EMBEDDED_CPU(1)", "SEPARATED_HOST(0)", ModeSeparated},
		"half of each":    {"SUPPLIER           ECPF(0)", "SUPPLIER           EXT_HOST_PF(1)", ""},
		"host owns all":   {"ECPF(0)", "EXT_HOST_PF(1)", ""},
		"no model":        {"INTERNAL_CPU_MODEL", "OTHER", ""},
		"no engine":       {"INTERNAL_CPU_OFFLOAD_ENGINE", "OTHER", ""},
	} {
		text := mstTable
		if c.from != "" {
			text = strings.ReplaceAll(text, c.from, c.to)
		}
		m, err := ParseMstconfig(text)
		require.NoError(t, err, name)
		got, why := m.Mode()
		require.Equal(t, c.want, got, name)
		require.Equal(t, c.want == "", why == "", name)
		require.False(t, m.InForce)
		require.Equal(t, "BlueField3", m.DeviceType)
	}
	for _, text := range []string{"", "-E- Failed to open the device", "Configurations:  Next Boot\n"} {
		_, err := ParseMstconfig(text)
		require.ErrorContains(t, err, "no parameters")
	}
}

func FuzzParseMstconfig(f *testing.F) {
	f.Add(mstTable)
	f.Add("Configurations: Default Current Next Boot\n* A_B x y z\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMstconfig(text)
		require.Equal(t, len(m.Params) == 0, err != nil && !strings.Contains(err.Error(), "too long"))
		mode, why := m.Mode()
		require.Equal(t, mode == "", why == "")
		for k, v := range m.Params {
			require.True(t, isParam(k))
			require.NotEmpty(t, v)
		}
	})
}

func TestPortName(t *testing.T) {
	for s, want := range map[string]portName{
		"p0":          {Physical: true, PF: -1, VF: -1, SF: -1},
		"pf0":         {PF: 0, VF: -1, SF: -1},
		"pf0vf3":      {PF: 0, VF: 3, SF: -1},
		"pf1sf88":     {PF: 1, VF: -1, SF: 88},
		"c1pf0":       {Controller: 1, PF: 0, VF: -1, SF: -1},
		"(c1)pf0vf3":  {Controller: 1, PF: 0, VF: 3, SF: -1},
		"(c12)pf0sf8": {Controller: 12, PF: 0, VF: -1, SF: 8},
	} {
		got, ok := parsePortName(s)
		require.True(t, ok, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"", "p", "0", "eth0", "pf", "pf0vf", "pf0vf1sf1", "(c)pf0", "pf-1", "p0 ", "pf0vf99999999999999999999", "c1p0"} {
		_, ok := parsePortName(s)
		require.False(t, ok, s)
	}
}

// attr encodes a netlink attribute with its padding.
func attr(typ uint16, v ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(v)))
	b = append(binary.NativeEndian.AppendUint16(b, typ), v...)
	return append(b, make([]byte, -len(b)&3)...)
}

func u16(n uint16) []byte { return binary.NativeEndian.AppendUint16(nil, n) }
func u32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

var pcipf = bytes.Join([][]byte{
	attr(dlBus, []byte("pci\x00")...), attr(dlDevice, []byte("0000:03:00.0\x00")...), attr(dlIndex, u32(196608)...),
	attr(dlFlavour, u16(3)...), attr(dlNetdev, []byte("pf0hpf\x00")...), attr(dlController, u32(1)...), attr(dlExternal, 1),
	attr(dlPF, u16(0)...), attr(dlFunction|1<<15, attr(dlFunctionHWAddr, 0xa0, 0x88, 0xc2, 0x0c, 0xd4, 0x52)...),
}, nil)

func TestDevlinkPort(t *testing.T) {
	p, err := parsePort(pcipf)
	require.NoError(t, err)
	one, zero := uint32(1), uint16(0)
	require.Equal(t, DevlinkPort{Bus: "pci", Device: "0000:03:00.0", Index: 196608, Flavour: "pcipf", Netdev: "pf0hpf",
		Controller: &one, External: true, PF: &zero, HWAddr: "a0:88:c2:0c:d4:52"}, p)
	for _, b := range [][]byte{{1}, {3, 0, 1, 0}, {200, 0, 1, 0}, attr(dlFunction, 9, 0, 0, 0)} {
		_, err := parsePort(b)
		require.ErrorIs(t, err, errAttr)
	}
	p, err = parsePort(attr(dlIndex, 1)) // of the wrong size: not said
	require.NoError(t, err)
	require.Zero(t, p.Index)
}

func TestDevlinkInfo(t *testing.T) {
	version := func(typ uint16, name, v string) []byte {
		return attr(typ, append(attr(dlVersionName, []byte(name+"\x00")...), attr(dlVersion, []byte(v+"\x00")...)...)...)
	}
	info, err := parseInfo(bytes.Join([][]byte{
		attr(dlBoardSerial, []byte("MT2331XZ0CGM\x00")...), version(dlRunning, "fw.version", "32.43.1014"),
		version(102, "fw.version", "32.99.0001"), version(dlFixed, "fw.psid", "MT_0000000884"),
	}, nil))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"board.serial_number": "MT2331XZ0CGM", "fw.version": "32.43.1014", "fw.psid": "MT_0000000884"}, info,
		"what is stored for the next boot is not what runs")
}

func FuzzDevlink(f *testing.F) {
	f.Add(pcipf)
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parsePort(b); err != nil {
			require.ErrorIs(t, err, errAttr)
		} else {
			require.LessOrEqual(t, len(p.Netdev), len(b))
		}
		_, _ = parseInfo(b)
	})
}

func TestGUIDs(t *testing.T) {
	require.Equal(t, "a088:c203:000c:d452", reversedGUID("52:d4:0c:00:03:c2:88:a0"))
	require.Equal(t, "a088:c203:000c:d452", guidOfSwitch("52d40c0003c288a0"))
	for _, s := range []string{"", "52d4", "zz", strings.Repeat("0", 40)} {
		require.Empty(t, guidOfSwitch(s))
	}
	require.False(t, isGUID("0000:0000:0000:0000"))
}
