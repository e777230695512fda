package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// role makes this test binary behave as the command.
const role = "SOFTROCE_TEST_CLI"

func TestMain(m *testing.M) {
	if os.Getenv(role) != "" {
		os.Exit(Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

type result struct {
	code     int
	out, err string
}

// lockedBuffer is read by the test while the command writes.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// softroceRun runs the command; while sees its stdout grow.
func softroceRun(t *testing.T, while func(p *os.Process, out *lockedBuffer), args ...string) result {
	t.Helper()
	if os.Getenv("SOFTROCE_VM_TESTS") == "" {
		t.Skip("SOFTROCE_VM_TESTS=1 runs the tests that boot VMs")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var out, errOut lockedBuffer
	cmd := exec.CommandContext(ctx, os.Args[0], append([]string{"run"}, args...)...)
	cmd.Env = append(os.Environ(), role+"=1")
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if while != nil {
		while(cmd.Process, &out)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

func TestRunPassesThrough(t *testing.T) {
	r := softroceRun(t, nil, "-fail-on-warn", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
	if r.code != 7 || r.out != "out\n" || !strings.HasPrefix(r.err, "err\n") {
		t.Errorf("%+v", r)
	}
}

func TestRunTimeout(t *testing.T) {
	if r := softroceRun(t, nil, "-timeout", "1s", "--", "sleep", "100"); r.code != exitTimeout {
		t.Errorf("%+v", r)
	}
}

func TestRunSignal(t *testing.T) {
	r := softroceRun(t, func(p *os.Process, out *lockedBuffer) {
		for end := time.Now().Add(2 * time.Minute); out.String() == "" && time.Now().Before(end); {
			time.Sleep(20 * time.Millisecond)
		}
		if err := p.Signal(syscall.SIGINT); err != nil {
			t.Error(err)
		}
	}, "--", "sh", "-c", "echo up; sleep 100")
	if r.code != 130 || r.out != "up\n" {
		t.Errorf("%+v", r)
	}
}

func TestRunFailsOnWarn(t *testing.T) {
	// A line like the kernel's own, of the kind that must not go unseen.
	say := "echo '<4>WARNING: CPU: 0 PID: 1 at test' > /dev/kmsg"
	if r := softroceRun(t, nil, "-fail-on-warn", "--", "sh", "-c", say); r.code != exitFail || !strings.Contains(r.err, "WARNING: CPU: 0 PID: 1 at test") {
		t.Errorf("%+v", r)
	}
}

func TestRunScript(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	text := "[*]\necho $SOFTROCE_HOST > /tmp/softroce-number\n---\n[host0]\necho a\n[host1]\necho b $SOFTROCE_PEERS\n"
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "dmesg")
	r := softroceRun(t, nil, "-hosts", "2", "-script", script, "-dmesg", log, "-out", "/tmp/softroce-number:"+dir+"/n*")
	if r.code != 0 || !strings.Contains(r.out, "host0| a\n") || !strings.Contains(r.out, "host1| b 10.77.0.1\n") {
		t.Errorf("%+v", r)
	}
	for name, want := range map[string]string{"n0": "0\n", "n1": "1\n"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if b, err := os.ReadFile(log); err != nil || strings.Count(string(b), "rdma_rxe: loaded") != 2 {
		t.Errorf("kernel logs: %v\n%s", err, b)
	}
}
