package softroce

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// vm is one QEMU process and our ends of its wires.
type vm struct {
	cmd     *exec.Cmd
	agent   net.Conn
	monitor monitor
	cards   []net.Conn
	console *console
	exited  chan struct{} // closed when QEMU has ended and was waited for
	err     error         // of Wait; valid after exited
}

// startVM starts QEMU so that it dies with this process, even by SIGKILL.
func startVM(program string, args []string, archives [][]byte, cards int) (v *vm, err error) {
	v = &vm{exited: make(chan struct{})}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			_ = f.Close() // QEMU has its own
		}
		if err != nil {
			v.closeWires()
		}
	}()
	var far *os.File
	if v.agent, far, err = socketPair(unix.SOCK_STREAM); err != nil {
		return nil, err
	}
	theirs = append(theirs, far)
	rd, err := memFile("initrd", archives)
	if err != nil {
		return nil, err
	}
	theirs = append(theirs, rd)
	if v.monitor.conn, far, err = socketPair(unix.SOCK_STREAM); err != nil {
		return nil, err
	}
	theirs = append(theirs, far)
	for range cards {
		conn, far, err := socketPair(unix.SOCK_DGRAM)
		if err != nil {
			return nil, err
		}
		v.cards, theirs = append(v.cards, conn), append(theirs, far)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	v.cmd = exec.Command(program, args...)
	v.cmd.Stdout, v.cmd.Stderr, v.cmd.ExtraFiles = w, w, theirs
	v.cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // a ^C is for us; we end the VMs in order
	}
	if err := v.run(); err != nil {
		_ = r.Close()
		_ = w.Close()
		return nil, fmt.Errorf("start qemu: %w", err)
	}
	_ = w.Close() // QEMU has its own
	v.console = newConsole(r)
	return v, nil
}

// run starts QEMU from a thread that lives as long as QEMU does: the
// parent-death signal is sent when the thread that forked ends.
func (v *vm) run() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := v.cmd.Start()
		started <- err
		if err == nil {
			v.err = v.cmd.Wait()
			// The agent's wire stays: what QEMU sent last is still to be read.
			for _, c := range v.cards {
				_ = c.Close()
			}
			close(v.exited)
		}
	}()
	return <-started
}

// kill ends QEMU and returns when it is gone.
func (v *vm) kill() {
	_ = v.cmd.Process.Kill() // it may be gone already
	<-v.exited
	v.closeWires()
}

// cpuTime is what QEMU and its threads have used.
func (v *vm) cpuTime() (time.Duration, error) {
	clock := int32(^v.cmd.Process.Pid<<3 | 2) // of another process, see clock_getcpuclockid(3)
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, err
	}
	return time.Duration(ts.Nano()), nil
}

func (v *vm) closeWires() {
	if v.agent != nil {
		_ = v.agent.Close()
	}
	if v.monitor.conn != nil {
		_ = v.monitor.conn.Close()
	}
	for _, c := range v.cards {
		_ = c.Close()
	}
}

func socketPair(kind int) (near net.Conn, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	for _, fd := range fds {
		// Room for a burst of large frames; the default is good enough if refused.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20)
	}
	mine, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	near, err = net.FileConn(mine) // a copy
	_ = mine.Close()
	if err != nil {
		_ = far.Close()
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return near, far, nil
}

func memFile(name string, parts [][]byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	for _, p := range parts {
		if _, err := f.Write(p); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("memfd: %w", err)
		}
	}
	return f, nil
}
