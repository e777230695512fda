package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/perf"
)

func TestBenchUsage(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"unknown flag":        {[]string{"--frobnicate", "h"}, "--frobnicate"},
		"no mode":             {nil, "whom?"},
		"two modes":           {[]string{"--serve", "h"}, "exclude each other"},
		"size 0":              {[]string{"--sizes", "0", "h"}, "0 B: a message has 1 byte to 1 GiB"},
		"size 1 TiB":          {[]string{"--sizes", "64,1t", "h"}, "1 TiB: a message has 1 byte to 1 GiB"},
		"size text":           {[]string{"--sizes", "big", "h"}, `"big" is no size`},
		"sizes twice":         {[]string{"--sizes", "1", "-a", "h"}, "exclude each other"},
		"op":                  {[]string{"--op", "flush", "h"}, "there are send, write, write-imm"},
		"mode":                {[]string{"--mode", "fast", "h"}, "there are latency, bandwidth, rate"},
		"atomic size":         {[]string{"--op", "cas", "--sizes", "16", "h"}, "works on 8 bytes"},
		"count 0":             {[]string{"-n", "0", "h"}, "--count 0"},
		"count and duration":  {[]string{"-n", "1", "-D", "1", "h"}, "exclude each other"},
		"duration":            {[]string{"-D", "0", "h"}, "--duration 0s"},
		"duration text":       {[]string{"-D", "soon", "h"}, "neither"},
		"a week":              {[]string{"-D", "168h", "h"}, "at most 24h"},
		"depth":               {[]string{"-t", "0", "h"}, "--depth 0"},
		"depth too large":     {[]string{"-t", "99999999", "h"}, "depth 99999999: it is 1 to"},
		"qps and threads":     {[]string{"-q", "2", "-T", "3", "h"}, "qps 2: it is 3 to"},
		"latency depth":       {[]string{"-m", "latency", "-t", "4", "h"}, "a depth of 1"},
		"latency both ways":   {[]string{"-m", "latency", "-b", "h"}, "nothing to be bidirectional"},
		"events and poll":     {[]string{"-e", "--poll", "h"}, "exclude each other"},
		"format":              {[]string{"-f", "xml", "h"}, "table, json or csv"},
		"repeat":              {[]string{"-r", "0", "h"}, "--repeat 0"},
		"port":                {[]string{"--port", "18515", "h"}, "--tcp-port"},
		"server with results": {[]string{"--serve", "--json", "x"}, "the client has the results"},
		"server duration":     {[]string{"--serve", "-D", "3"}, "--duration is the client's to give"},
		"clients":             {[]string{"--clients", "3", "h"}, "--clients is for --serve"},
		"server memory":       {[]string{"--serve", "--max-memory", "lots", "-d", "soft:127.7.2.9"}, "--max-memory lots"},
		"compare one":         {[]string{"compare", "a.json"}, "two reports"},
		"compare missing":     {[]string{"compare", "/no/a.json", "/no/b.json"}, "no such file"},
		"compare nonsense":    {[]string{"compare", "/etc/passwd", "/etc/passwd"}, "no report of zrdma bench"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			require.Equal(t, ExitUsage, Main(append([]string{"bench"}, c.args...), &out, &errOut), errOut.String())
			require.Contains(t, errOut.String(), c.want)
			require.Empty(t, out.String())
		})
	}
}

func TestPingUsage(t *testing.T) {
	for want, args := range map[string][]string{
		"it is rc or ud":                     {"-t", "uc", "h"},
		"it excludes --transport ud":         {"--rpc", "-t", "ud", "h"},
		"it excludes --cm":                   {"--mtu", "--cm", "h"},
		"with one size":                      {"--loopback", "--size", "1,2"},
		"are for the client":                 {"--serve", "--cm"},
		"--flood and --interval":             {"-f", "-i", "1", "h"},
		"--deadline -1s":                     {"-w", "-1", "h"},
		"calls need port 65536":              {"-p", "65534", "--rpc", "h"},
		`--size 1t: messages have 1 to 6710`: {"--size", "1t", "h"},
	} {
		var out, errOut bytes.Buffer
		require.Equal(t, ExitUsage, Main(append([]string{"ping"}, args...), &out, &errOut), errOut.String())
		require.Contains(t, errOut.String(), want)
	}
}

func TestBenchLoopback(t *testing.T) {
	var out, errOut bytes.Buffer
	require.Equal(t, ExitOK, Main([]string{"bench", "--loopback", "-d", "soft:127.7.2.2", "--op", "send,fetch-add", "--mode", "all", "-n", "50", "--warmup", "0.01", "--poll", "-l", "1"}, &out, &errOut), errOut.String())
	require.Equal(t, 1+6, strings.Count(out.String()[strings.Index(out.String(), "op  "):], "\n"), out.String())
	require.Contains(t, out.String(), "Both ends are in one process")
	require.Empty(t, errOut.String(), "no progress where there is no terminal")
	require.Equal(t, ExitNoDevice, Main([]string{"bench", "-d", "no_such_device", "h"}, &out, &errOut))
}

func TestBenchCompareCommand(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, rate float64) string {
		c, err := perf.Case{Op: perf.Write, Size: 4096}.WithDefaults()
		require.NoError(t, err)
		r := perf.Report{Schema: perf.Schema, Results: []perf.Result{{Case: c}}}
		for i := range 8 {
			r.Results[0].Samples = append(r.Results[0].Samples, perf.Sample{BytesPerSecond: rate + float64(i), Seconds: 1})
		}
		p := filepath.Join(dir, name)
		f, err := os.Create(p)
		require.NoError(t, err)
		require.NoError(t, r.WriteJSON(f))
		require.NoError(t, f.Close())
		return p
	}
	a, b := write("a.json", 2e9), write("b.json", 1e9)
	var out, errOut bytes.Buffer
	require.Equal(t, ExitOK, Main([]string{"bench", "compare", a, b}, &out, &errOut), errOut.String())
	require.Contains(t, out.String(), "-50.00%")
	require.Contains(t, out.String(), "worse")
	require.Equal(t, ExitFailed, Main([]string{"bench", "compare", "--worse", "5", a, b}, &out, &errOut))
	require.Contains(t, errOut.String(), "MB/s is worse by more than 5 %")
	require.Equal(t, ExitOK, Main([]string{"bench", "compare", "--worse", "5", b, a}, &out, &errOut))
}

func TestProgressLine(t *testing.T) {
	require.Equal(t, "write 4 KiB  connecting", progressLine("write 4 KiB", perf.Progress{}))
	require.Equal(t, "x  2.0 s  2.5 MB/s  500 msg/s", progressLine("x", perf.Progress{Elapsed: 2 * time.Second, Messages: 1000, Bytes: 5e6}))
}

func TestHelpTopicsAndPages(t *testing.T) {
	for topic, want := range map[string]string{"exit-codes": "  130  Interrupted", "device-names": "soft:127.0.0.1", "examples": "zrdma bench compare"} {
		var out, errOut bytes.Buffer
		require.Equal(t, ExitOK, Main([]string{"help", topic}, &out, &errOut), errOut.String())
		require.Contains(t, out.String(), want)
	}
	dir := t.TempDir()
	var out, errOut bytes.Buffer
	require.Equal(t, ExitOK, Main([]string{"man", dir}, &out, &errOut), errOut.String())
	b, err := os.ReadFile(filepath.Join(dir, "zrdma-bench.1"))
	require.NoError(t, err)
	require.Contains(t, string(b), "bidirectional")
	require.FileExists(t, filepath.Join(dir, "zrdma-bench-compare.1"))
	require.Equal(t, ExitUsage, Main([]string{"man", "/no/such"}, &out, &errOut))
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		var out, errOut bytes.Buffer
		require.Equal(t, ExitOK, Main([]string{"completion", shell}, &out, &errOut), errOut.String())
		require.Contains(t, out.String(), "zrdma")
	}
	for want, args := range map[string][]string{
		"send,write-imm\n": {"bench", "--op", "send,"},
		"latency\n":        {"bench", "--mode", ""},
		"ud\n":             {"ping", "--transport", ""},
		"soft:127.0.0.1\n": {"ping", "--device", ""},
	} {
		var out, errOut bytes.Buffer
		require.Equal(t, ExitOK, Main(append([]string{"__complete"}, args...), &out, &errOut), errOut.String())
		require.Contains(t, out.String(), want)
	}
}
