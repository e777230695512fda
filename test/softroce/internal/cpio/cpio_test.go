package cpio

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func archive(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := NewWriter(&buf)
	for _, err := range []error{
		w.File("/a/b/file", 0o755, []byte("hello")),
		w.File("a/other", 0o600, nil),
		w.Symlink("link", "a/other"),
		w.CharDev("/dev/console", 0o600, 5, 1),
		w.Dir("/a/b"),
		w.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

func TestHeader(t *testing.T) {
	b := archive(t)
	if len(b)%4 != 0 {
		t.Errorf("length %d is not a multiple of 4", len(b))
	}
	want := "070701" + "00000001" + "000041ed" + "00000000" + "00000000" + "00000002" + "00000000" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000000" + "00000002" + "00000000" + "a\x00"
	if got := string(b[:len(want)]); got != want {
		t.Errorf("first entry\n got %q\nwant %q", got, want)
	}
	if !bytes.Contains(b, []byte("0000000b00000000TRAILER!!!\x00")) {
		t.Error("no trailer")
	}
	i := bytes.Index(b, []byte("dev/console\x00"))
	if head := string(b[i-110 : i]); head[14:22] != "00002180" || head[78:94] != "0000000500000001" {
		t.Errorf("device node's header is %q", head)
	}
}

// The real cpio, where there is one, reads what we write.
func TestAgainstCpio(t *testing.T) {
	prog, err := exec.LookPath("busybox")
	args := []string{"cpio", "-t"}
	if err != nil {
		prog, err = exec.LookPath("cpio")
		args = args[1:]
	}
	if err != nil {
		if os.Getenv("SOFTROCE_VM_TESTS") != "" {
			t.Fatal("neither busybox nor cpio is installed; run: apt-get install -y --no-install-recommends cpio")
		}
		t.Skip("neither busybox nor cpio is installed; TestHeader checks the bytes")
	}
	cmd := exec.Command(prog, args...)
	cmd.Stdin = bytes.NewReader(archive(t))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Fields(string(out)), "a a/b a/b/file a/other link dev dev/console"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

type broken struct{ n int }

var errFull = errors.New("full")

func (b *broken) Write(p []byte) (int, error) {
	if b.n -= len(p); b.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWriteError(t *testing.T) {
	w := NewWriter(&broken{n: 200})
	_ = w.File("x", 0o644, make([]byte, 300)) // Close reports it again
	if err := w.Close(); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
}
