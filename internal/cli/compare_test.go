package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/compare"
)

// asProgram makes the test binary the program, for those that start it again.
const asProgram = "ZRDMA_TEST_AS_PROGRAM"

func init() {
	if os.Getenv(asProgram) != "" && len(os.Args) > 1 && os.Args[1] == "compare" {
		os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Setenv(asProgram, "1")
}

func TestCompareUsage(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"nobody":       {nil, "with whom?"},
		"two modes":    {[]string{"--server", "--loopback"}, "exclude each other"},
		"two hosts":    {[]string{"a", "b"}, "one HOST"},
		"empty host":   {[]string{""}, "empty"},
		"block 0":      {[]string{"--loopback", "--block", "0"}, "4 KiB to 64 MiB"},
		"block 1 TiB":  {[]string{"--loopback", "--block", "1TiB"}, "4 KiB to 64 MiB"},
		"nothing":      {[]string{"--loopback", "-n", "0"}, "0 bytes to move"},
		"no number":    {[]string{"--loopback", "-n", "much"}, `"much"`},
		"negative":     {[]string{"--loopback", "-n", "-1GiB"}, "out of range"},
		"not a number": {[]string{"--loopback", "-n", "NaN"}, "out of range"},
		"rounds":       {[]string{"--loopback", "-r", "0"}, "--rounds 0"},
		"depth":        {[]string{"--loopback", "--depth", "5000"}, "1 to 1024"},
		"way":          {[]string{"--loopback", "-w", "pigeon"}, "there are read-write"},
		"source":       {[]string{"--loopback", "--source", "tape"}, `"tape"`},
		"unknown flag": {[]string{"--loopback", "--fast"}, "--fast"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			require.Equal(t, ExitUsage, Main(append([]string{"compare"}, c.args...), &out, &errOut), errOut.String())
			require.Contains(t, errOut.String(), c.want)
			require.Empty(t, out.String())
		})
	}
}

func TestBytesFlag(t *testing.T) {
	for text, want := range map[string]int64{"4096": 4096, "64KiB": 64 << 10, "1.5MiB": 3 << 19, "2G": 2 << 30, "1GB": 1e9, "10 kB": 10_000, "7B": 7} {
		var b bytesFlag
		require.NoError(t, b.Set(text), text)
		require.EqualValues(t, want, b, text)
	}
}

func TestCompareList(t *testing.T) {
	var out, errOut bytes.Buffer
	require.Equal(t, ExitOK, Main([]string{"compare", "--list"}, &out, &errOut))
	for _, w := range compare.Ways() {
		require.Contains(t, out.String(), w.Name+": ")
	}
}

func TestCompareWithoutAServer(t *testing.T) {
	var out, errOut bytes.Buffer
	require.Equal(t, ExitFailed, Main([]string{"compare", "127.0.0.1:1"}, &out, &errOut))
	require.Contains(t, errOut.String(), "is `zrdma compare --server` running there")
	require.Equal(t, ExitNoDevice, Main([]string{"compare", "-d", "mlx5_77", "127.0.0.1:1"}, &out, &errOut), errOut.String())
}

// smallJob is quick, and takes the ways whose set-up differs most.
var smallJob = []string{"compare", "--loopback", "-d", "soft", "-n", "2MiB", "--block", "64KiB", "--depth", "4", "--data", "1MiB", "-r", "1", "-w", "read-write", "-w", "rdma-write"}

// Two processes, JSON and the report.
func TestCompareLoopback(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report.html")
	var out, errOut bytes.Buffer
	require.Equal(t, ExitOK, Main(append(smallJob, "--json", "--html", file), &out, &errOut), errOut.String())
	var r compare.Result
	require.NoError(t, json.Unmarshal(out.Bytes(), &r))
	require.Len(t, r.Ways, 2)
	require.NotEqual(t, r.Server.PID, r.Client.PID, "two processes")
	require.True(t, r.SameHost)
	for _, w := range r.Ways {
		require.Len(t, w.Runs, 1, w.Cannot)
		require.EqualValues(t, 2<<20, w.Runs[0].Bytes)
	}
	require.Contains(t, errOut.String(), "round 1: ")
	page, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(page), "zrdma compare: the ways to move bytes")
}

// What was named and cannot be done is a failure; what was not named is not.
func TestCompareNamedWay(t *testing.T) {
	t.Setenv(compare.EnvAgent, "")
	var out, errOut bytes.Buffer
	require.Equal(t, ExitFailed, Main(append(smallJob, "-w", "dpu"), &out, &errOut))
	require.Contains(t, errOut.String(), "dpu was asked for and cannot be done here: no agent configured")
	require.Contains(t, out.String(), "read-write", "the others were measured")
}

// The numbers are there when the report finds no room.
func TestCompareFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	var out, errOut bytes.Buffer
	require.Equal(t, ExitReport, Main(append(smallJob, "--html", "/nowhere/x.html"), &out, &errOut))
	require.Contains(t, errOut.String(), "the report cannot be written")
	require.Empty(t, out.String(), "known before the work")
	require.Equal(t, ExitReport, Main(append(smallJob, "--html", "/dev/full"), &out, &errOut))
	require.Contains(t, errOut.String(), "writing the report")
	require.Contains(t, errOut.String(), "no space left")
	require.Contains(t, out.String(), "Processor time")
}

// Ctrl-C prints what was measured, and ends the server process too.
func TestCompareInterrupted(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	args := append([]string{}, smallJob...)
	cmd := exec.Command(self, append(args, "-r", "1000")...)
	var out bytes.Buffer
	cmd.Stdout = &out
	said, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	kill := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	var all strings.Builder
	for buf := make([]byte, 4096); ; {
		n, err := said.Read(buf)
		all.Write(buf[:n])
		if strings.Contains(all.String(), "rdma-write     round 2: ") {
			require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
			break
		}
		require.NoError(t, err, all.String())
	}
	// Standard error ends when the server process has ended as well.
	for buf := make([]byte, 4096); ; {
		n, err := said.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, all.String())
	require.Equal(t, ExitInterrupted, exit.ExitCode(), all.String())
	require.Contains(t, all.String(), "interrupted; the numbers are of the runs that had ended")
	require.Contains(t, out.String(), "interrupted, so runs are missing")
	require.Contains(t, out.String(), "rdma-write")
}
