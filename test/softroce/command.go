package softroce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/test/softroce/internal/agent"
)

// Cmd is a program to run on a host, in the manner of os/exec.
type Cmd struct {
	Argv []string
	// Env is the environment; nil means that of this process. The SOFTROCE_
	// variables of Host.Environ are put on top either way.
	Env []string
	// Dir is the working folder; "" means that of this process, which the guest
	// sees under the same path.
	Dir string
	// Stdin is /dev/null if nil.
	Stdin io.Reader
	// Stdout and Stderr get the output as it comes; nil throws it away. If both
	// are the same writer it must allow concurrent use.
	Stdout, Stderr io.Writer
	UID, GID       uint32
	// Memlock limits locked memory, in bytes. Default 0: no limit.
	Memlock uint64

	host *Host
	ctx  context.Context
	proc *agent.Proc
	vm   *vm
	stop func() bool
}

// ExitError says that a program ran and did not succeed.
type ExitError struct {
	Host   string
	Argv   []string
	Code   int            // 128 + the signal's number if a signal ended it
	Signal syscall.Signal // 0 if none did
}

func (e *ExitError) Error() string {
	if e.Signal != 0 {
		return fmt.Sprintf("softroce: %s: %s: signal: %v", e.Host, e.Argv[0], e.Signal)
	}
	return fmt.Sprintf("softroce: %s: %s: exit status %d", e.Host, e.Argv[0], e.Code)
}

// Command prepares a program. When ctx ends it is killed, with its process group.
func (h *Host) Command(ctx context.Context, argv ...string) *Cmd {
	return &Cmd{Argv: argv, host: h, ctx: ctx}
}

// Environ is what a program on this host is told about its place:
//
//	SOFTROCE_HOST=0            the host's number
//	SOFTROCE_HOSTS=2           how many there are
//	SOFTROCE_IP=10.77.0.1      this host, IPv4 (card 0)
//	SOFTROCE_IP6=fd77::1       this host, IPv6
//	SOFTROCE_PEERS=10.77.0.2   the others' IPv4 addresses, by number, with spaces between
//	SOFTROCE_DEVICE=rxe0       the first device
//	SOFTROCE_ARCH=amd64        the architecture
func (h *Host) Environ() []string {
	peers := ""
	for _, o := range h.cluster.hosts {
		if o != h {
			if peers != "" {
				peers += " "
			}
			peers += o.IP(0)
		}
	}
	return []string{
		fmt.Sprintf("SOFTROCE_HOST=%d", h.index), fmt.Sprintf("SOFTROCE_HOSTS=%d", h.cluster.Len()),
		"SOFTROCE_IP=" + h.IP(0), "SOFTROCE_IP6=" + h.IP6(0), "SOFTROCE_PEERS=" + peers, "SOFTROCE_DEVICE=rxe0",
		"SOFTROCE_ARCH=" + h.Arch(),
	}
}

// Start starts the program and returns when it runs.
func (c *Cmd) Start() error {
	if c.proc != nil {
		return errors.New("softroce: the command was started before")
	}
	if len(c.Argv) == 0 {
		return errors.New("softroce: no command")
	}
	req := agent.Request{Argv: c.Argv, Env: c.Env, Dir: c.Dir, UID: c.UID, GID: c.GID, Memlock: -1}
	if c.Memlock != 0 {
		req.Memlock = int64(c.Memlock)
	}
	if req.Env == nil {
		req.Env = os.Environ()
	}
	req.Env = append(append([]string(nil), req.Env...), c.host.Environ()...)
	if req.Dir == "" {
		dir, err := os.Getwd()
		if err != nil {
			return c.host.wrap(c.Argv[0], nil, err)
		}
		req.Dir = dir
	}
	return c.start(req)
}

func (c *Cmd) start(req agent.Request) error {
	client, v, err := c.host.up()
	if err != nil {
		return err
	}
	c.vm = v
	if c.proc, err = client.Start(c.ctx, req, c.Stdin, c.Stdout, c.Stderr); err != nil {
		select {
		case <-client.Done():
			return c.host.wrap("start "+c.Argv[0], v, errors.Join(err, ErrDown))
		default:
			return c.host.wrap("start "+c.Argv[0], nil, err)
		}
	}
	c.stop = context.AfterFunc(c.ctx, func() { _ = c.Kill() }) // a dead VM ends Wait too
	return nil
}

// Wait waits for the program and its output. A program that ran and failed is
// an *ExitError; one whose VM went away is ErrDown.
func (c *Cmd) Wait() error {
	if c.proc == nil {
		return errors.New("softroce: the command was not started")
	}
	defer c.stop()
	st, err := c.waitProc()
	if ctxErr := c.ctx.Err(); ctxErr != nil && (err != nil || st.Signal != 0) {
		return c.host.wrap(c.Argv[0], nil, ctxErr)
	}
	if errors.Is(err, agent.ErrBroken) {
		return c.host.wrap(c.Argv[0], c.vm, errors.Join(err, ErrDown))
	}
	if err != nil {
		return c.host.wrap(c.Argv[0]+": copy output", nil, err)
	}
	if st.Err != "" {
		return c.host.wrap(c.Argv[0], nil, errors.New(st.Err))
	}
	if st.Code != 0 {
		return &ExitError{Host: c.host.Name(), Argv: c.Argv, Code: st.Code, Signal: syscall.Signal(st.Signal)}
	}
	return nil
}

// stuck is how long a killed program may take to go. One that waits in the
// kernel for a device does not die of SIGKILL.
const stuck = 15 * time.Second

func (c *Cmd) waitProc() (agent.Status, error) {
	type answer struct {
		st  agent.Status
		err error
	}
	done := make(chan answer, 1)
	go func() {
		st, err := c.proc.Wait()
		done <- answer{st, err}
	}()
	select {
	case a := <-done:
		return a.st, a.err
	case <-c.ctx.Done():
	}
	select {
	case a := <-done:
		return a.st, a.err
	case <-time.After(stuck):
		return agent.Status{}, errors.New("killed, but it does not go")
	}
}

// Run is Start and Wait.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the program and returns its stdout.
func (c *Cmd) Output() ([]byte, error) {
	var buf bytes.Buffer
	c.Stdout = &buf
	err := c.Run()
	return buf.Bytes(), err
}

// Signal sends a signal to the program's process group.
func (c *Cmd) Signal(sig syscall.Signal) error {
	if c.proc == nil {
		return errors.New("softroce: the command was not started")
	}
	return c.proc.Signal(int(sig))
}

// Kill is Signal(SIGKILL).
func (c *Cmd) Kill() error { return c.Signal(syscall.SIGKILL) }
