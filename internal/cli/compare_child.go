package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/zrdma/zrdma/internal/compare"
	"github.com/zrdma/zrdma/verbs"
)

// child is the server of --loopback, a process of its own.
type child struct {
	cmd  *exec.Cmd
	in   io.Closer
	addr string
}

// shared is a writer for two: this process and what the other one says. A file is
// left as it is: the other process has it itself.
func shared(w io.Writer) io.Writer {
	if _, ok := w.(*os.File); ok {
		return w
	}
	return &sharedWriter{w: w}
}

type sharedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *sharedWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}

// startChild starts this program again as the server and waits until it listens.
func (f *compareFlags) startChild(ctx context.Context, errOut io.Writer) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"compare", "--server", "--child", "--listen", "127.0.0.1:0", "--max-data", fmt.Sprint(int64(f.data)), "--dir", f.dir}
	if device := f.childDevice(); device != "" {
		args = append(args, "--device", device)
	}
	if f.count {
		args = append(args, "--count-calls")
	}
	cmd := exec.Command(self, args...)
	cmd.Stderr = errOut
	detach(cmd) // Ctrl-C is for this process, which ends the other in order
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the server process: %w", err)
	}
	c := &child{cmd: cmd, in: in}
	stop := context.AfterFunc(ctx, func() { in.Close() })
	defer stop()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(errors.New("the server process ended before it listened"), c.stop())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	c.addr = strings.TrimSpace(line)
	return c, nil
}

// childDevice is the device of the other process. Two processes cannot have the
// software device at one address.
func (f *compareFlags) childDevice() string {
	device := f.device
	if device == "" {
		device = os.Getenv(verbs.EnvDevice)
	}
	if strings.HasPrefix(device, compare.SoftDevice+":") {
		return compare.SoftDevice
	}
	return f.device
}

// stop ends the process, which its standard input tells to.
func (c *child) stop() error {
	c.in.Close()
	t := time.AfterFunc(20*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer t.Stop()
	return c.cmd.Wait()
}
