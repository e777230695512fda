package guest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/zrdma/zrdma/test/softroce/internal/agent"
	"golang.org/x/sys/unix"
)

// handover is what process 1 tells the agent.
type handover struct {
	Steps   []agent.HelloTiming
	Devices []string
}

func runAgent() error {
	var h handover
	if len(os.Args) != 3 {
		return errors.New("no handover")
	}
	if err := json.Unmarshal([]byte(os.Args[2]), &h); err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited); err != nil {
		return fmt.Errorf("memlock: %w", err)
	}
	// A process starts with 1024 otherwise and may raise it to 4096 only.
	files := unix.Rlimit{Cur: 1 << 16, Max: 1 << 20}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	s := agent.NewServer(port)
	s.Wrap = wrapLimits
	s.Sync = func(marker string) {
		// The host gives up by its own deadline if this fails.
		_ = os.WriteFile("/dev/kmsg", []byte(marker+"\n"), 0)
	}
	go func() {
		if err := pumpKmsg(s); err != nil {
			fmt.Println("softroce-init: kernel log:", err)
		}
	}()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	hello := agent.Hello{Kernel: unix.ByteSliceToString(uts.Release[:]), Uptime: uptime(), Devices: h.Devices, Steps: h.Steps}
	if err := s.Ready(hello); err != nil {
		return err
	}
	return s.Serve()
}

func openPort() (*os.File, error) {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if b, err := os.ReadFile(n); err == nil && strings.TrimSpace(string(b)) == Port {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(n)), os.O_RDWR, 0)
			}
		}
		if time.Now().After(end) {
			return nil, errors.New("the agent's port did not appear")
		}
	}
}

// pumpKmsg sends the kernel's log to the host, from the boot on, in the form
// dmesg prints it.
func pumpKmsg(s *agent.Server) error {
	f, err := os.Open("/dev/kmsg")
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := f.Read(buf)
		if errors.Is(err, unix.EPIPE) {
			continue // records were overwritten; the next read goes on behind the gap
		}
		if err != nil {
			return err
		}
		if err := s.Kmsg(formatKmsg(buf[:n])); err != nil {
			return err
		}
	}
}

// formatKmsg turns "6,339,5140900,-;text\n KEY=value\n" into "[    5.140900] text\n".
func formatKmsg(rec []byte) []byte {
	head, text, ok := bytes.Cut(rec, []byte(";"))
	fields := strings.Split(string(head), ",")
	if !ok || len(fields) < 3 {
		return rec
	}
	us, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return rec
	}
	text, _, _ = bytes.Cut(text, []byte("\n"))
	return fmt.Appendf(nil, "[%5d.%06d] %s\n", us/1e6, us%1e6, text)
}
