package softroce_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zrdma/zrdma/test/softroce"
)

// victim is the role of this test binary in TestLeavesNothing: it boots a VM,
// says so, and waits to be ended.
const victim = "SOFTROCE_TEST_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(victim) == "" {
		os.Exit(m.Run())
	}
	c, err := softroce.Start(context.Background(), softroce.Config{MemoryMiB: 512})
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.WriteString("up\n")
	if os.Getenv(victim) == "panic" {
		panic("as asked")
	}
	err = c.Host(0).Command(context.Background(), "sleep", "1000").Run()
	panic(err)
}

// Whatever ends the harness, no QEMU and no file stays.
func TestLeavesNothing(t *testing.T) {
	needVM(t)
	for how, end := range map[string]func(*os.Process) error{
		"kill -9": (*os.Process).Kill,
		"term":    func(p *os.Process) error { return p.Signal(syscall.SIGTERM) },
		"panic":   func(*os.Process) error { return nil },
	} {
		t.Run(how, func(t *testing.T) {
			tmp := t.TempDir()
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), victim+"="+how, "TMPDIR="+tmp)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil || line != "up\n" {
				t.Fatalf("%q, %v", line, err)
			}
			children := qemusOf(t, cmd.Process.Pid)
			if len(children) != 1 && how != "panic" { // that one may be gone by now
				t.Errorf("it has %d QEMUs", len(children))
			}
			if err := end(cmd.Process); err != nil {
				t.Fatal(err)
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) {
				t.Fatalf("it ended with %v", err)
			}
			for _, pid := range children {
				gone(t, pid)
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func qemusOf(t *testing.T, parent int) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, f := range files {
		if name, state, ppid := readStat(f); ppid == parent && state != "Z" && strings.HasPrefix(name, "qemu-system") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// readStat returns nothing for a process that is gone.
func readStat(file string) (name, state string, ppid int) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", "", 0
	}
	head, tail, _ := strings.Cut(string(b), ") ")
	_, name, _ = strings.Cut(head, "(")
	f := strings.Fields(tail)
	if len(f) < 2 {
		return "", "", 0
	}
	ppid, _ = strconv.Atoi(f[1]) // the kernel writes a number
	return name, f[0], ppid
}

// gone waits a little: a large process takes a moment to be torn down. A zombie
// that nobody reaps is dead too.
func gone(t *testing.T, pid int) {
	t.Helper()
	file := filepath.Join("/proc", strconv.Itoa(pid), "stat")
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, state, _ := readStat(file)
		if state == "" || state == "Z" {
			return
		}
		if time.Now().After(end) {
			t.Errorf("QEMU %d lives on, state %s", pid, state)
			return
		}
	}
}
