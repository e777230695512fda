//go:build unix

package agent

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// drain is how long output may go on after a process ended, when a daemon it
// left behind holds its stdout.
const drain = 2 * time.Second

// task is one Request being served.
type task struct {
	fw    *frameWriter
	id    uint32
	req   Request
	stdin *inStream
	out   [3]*outStream // 1 and 2 are used

	mu      sync.Mutex // guards what follows
	pid     int        // 0 before the start and after the end
	pending []syscall.Signal
	ended   bool
}

func newTask(fw *frameWriter, id uint32, req Request) *task {
	t := &task{fw: fw, id: id, req: req, stdin: newInStream(fw, id, 0)}
	t.out[1] = newOutStream(fw, id, 1)
	t.out[2] = newOutStream(fw, id, 2)
	return t
}

// signal reaches the whole process group. A signal that comes before the process
// does is kept for it.
func (t *task) signal(sig syscall.Signal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ended:
	case t.pid == 0:
		t.pending = append(t.pending, sig)
	default:
		_ = syscall.Kill(-t.pid, sig) // ESRCH: it is just ending
	}
}

func (t *task) abort() {
	t.stdin.end()
	t.out[1].abort()
	t.out[2].abort()
}

func (t *task) exec() Status {
	path, err := LookPath(t.req)
	if err != nil {
		return t.refuse(err)
	}
	cmd := &exec.Cmd{Path: path, Args: t.req.Argv, Env: t.req.Env, Dir: t.req.Dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if t.req.UID != 0 || t.req.GID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: t.req.UID, Gid: t.req.GID}
	}
	var ends [3]*os.File // our ends of the pipes
	var theirs []*os.File
	defer func() {
		for _, f := range append(theirs, ends[:]...) {
			_ = f.Close() // Close of a nil *os.File is an error, not a panic
		}
	}()
	for fd := 1; fd <= 2; fd++ {
		r, w, err := os.Pipe()
		if err != nil {
			return t.refuse(err)
		}
		ends[fd], theirs = r, append(theirs, w)
	}
	cmd.Stdout, cmd.Stderr = theirs[0], theirs[1]
	if t.req.Stdin {
		r, w, err := os.Pipe()
		if err != nil {
			return t.refuse(err)
		}
		ends[0], theirs, cmd.Stdin = w, append(theirs, r), r
	}
	if err := cmd.Start(); err != nil {
		return t.refuse(explain(path, err))
	}
	for _, f := range theirs {
		_ = f.Close() // the child has its own
	}
	theirs = nil
	t.began(cmd.Process.Pid)
	_ = t.fw.writeJSON(kindStarted, t.id, startReply{PID: cmd.Process.Pid}) // Serve sees a broken connection itself
	return t.pump(cmd, ends)
}

// explain says what a program is for that does not run here.
func explain(path string, err error) error {
	if !errors.Is(err, syscall.ENOEXEC) {
		return err
	}
	f, ferr := elf.Open(path)
	if ferr != nil {
		return err
	}
	defer f.Close()
	return fmt.Errorf("%w: it is a program for %s, and this host is %s", err, f.Machine, runtime.GOARCH)
}

func (t *task) pump(cmd *exec.Cmd, ends [3]*os.File) Status {
	if t.req.Stdin {
		go func() {
			_ = t.stdin.copyTo(ends[0]) // EPIPE: the process does not read its stdin
			_ = ends[0].Close()
		}()
	}
	var copies sync.WaitGroup
	for fd := 1; fd <= 2; fd++ {
		copies.Go(func() { _ = t.out[fd].copyFrom(ends[fd]) }) // ends with the process or the connection
	}
	err := cmd.Wait()
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	late := time.AfterFunc(drain, func() {
		now := time.Now()
		_ = ends[1].SetReadDeadline(now)
		_ = ends[2].SetReadDeadline(now)
	})
	copies.Wait()
	late.Stop()
	t.stdin.end()
	return status(cmd, err)
}

func (t *task) began(pid int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pid = pid
	for _, sig := range t.pending {
		_ = syscall.Kill(-pid, sig) // ESRCH: it has ended already
	}
}

// refuse reports a request that never became a process.
func (t *task) refuse(err error) Status {
	_ = t.fw.writeJSON(kindStarted, t.id, startReply{Err: err.Error()}) // as above
	return Status{Code: 127, Err: err.Error()}
}

func status(cmd *exec.Cmd, err error) Status {
	var st Status
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		st.Err = err.Error()
	}
	st.Code = cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		st.Signal = int(ws.Signal())
		st.Code = 128 + st.Signal
	}
	return st
}

// LookPath finds argv[0] by the PATH and the folder of the request, not ours.
func LookPath(req Request) (string, error) {
	if len(req.Argv) == 0 {
		return "", errors.New("no command")
	}
	name := req.Argv[0]
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(req.Dir, name)
		}
		return name, nil
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range req.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	for _, dir := range filepath.SplitList(path) {
		p := filepath.Join(dir, name)
		if !filepath.IsAbs(p) {
			p = filepath.Join(req.Dir, p)
		}
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: not found in PATH=%s", name, path)
}
