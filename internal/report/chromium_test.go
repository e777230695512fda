package report

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestInChromium has a browser draw the charts. ZRDMA_SCREENSHOT=FILE keeps a
// picture. Where Chromium is not installed, TestDocument is what there is.
func TestInChromium(t *testing.T) {
	bin, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium on this machine")
	}
	r := sample()
	r.Title, r.Charts[0].Labels[0] = "Sample", "a"
	file := filepath.Join(t.TempDir(), "report.html")
	var b bytes.Buffer
	require.NoError(t, Write(&b, r))
	require.NoError(t, os.WriteFile(file, b.Bytes(), 0o600))
	args := []string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir=" + t.TempDir(), "--enable-logging=stderr", "--virtual-time-budget=10000"}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, bin, append(args, "--dump-dom", "file://"+file)...)
	cmd.Stderr = &said
	dom, err := cmd.Output()
	require.NoError(t, err, said.String())
	require.Contains(t, string(dom), `data-drawn="3"`, "the script did not come to its end: %s", said.String())
	require.NotContains(t, said.String(), "CONSOLE", "the page complains")
	if png := os.Getenv("ZRDMA_SCREENSHOT"); png != "" {
		cmd := exec.CommandContext(ctx, bin, append(args, "--window-size=1280,1400", "--screenshot="+png, "file://"+file)...)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
}
