//go:build unix

package agent

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// connect joins a server and a client by a pipe in memory.
func connect(t *testing.T) (*Client, *Server) {
	t.Helper()
	a, b := net.Pipe()
	s := NewServer(a)
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	c := NewClient(b, nil)
	t.Cleanup(func() {
		_ = c.Close() // the test may have done it
		if err := <-served; err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Serve: %v", err)
		}
	})
	return c, s
}

func sh(script string) Request {
	return Request{Argv: []string{"sh", "-c", script}, Env: []string{"PATH=" + os.Getenv("PATH"), "X=y"}, Dir: "/", Memlock: -1}
}

func TestRun(t *testing.T) {
	c, _ := connect(t)
	for name, tc := range map[string]struct {
		script, stdin, out, err string
		st                      Status
	}{
		"both streams": {script: "echo $X; echo no >&2; exit 3", out: "y\n", err: "no\n", st: Status{Code: 3}},
		"signal":       {script: "kill -TERM $$", st: Status{Code: 143, Signal: 15}},
		"stdin":        {script: "cat", stdin: strings.Repeat("0123456789", 100_000), out: strings.Repeat("0123456789", 100_000)},
		"unread stdin": {script: "true", stdin: strings.Repeat("x", 1<<20)},
		"daemon":       {script: "sleep 4 & echo ok", out: "ok\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, errOut bytes.Buffer
			var in io.Reader
			if tc.stdin != "" {
				in = strings.NewReader(tc.stdin)
			}
			p, err := c.Start(t.Context(), sh(tc.script), in, &out, &errOut)
			if err != nil {
				t.Fatal(err)
			}
			st, err := p.Wait()
			if err != nil || st != tc.st || out.String() != tc.out || errOut.String() != tc.err {
				t.Errorf("status %+v, error %v, %d bytes out, stderr %q", st, err, out.Len(), errOut.String())
			}
		})
	}
}

// A process whose output nobody takes stops itself, not the others.
func TestSlowReaderStopsItselfOnly(t *testing.T) {
	c, _ := connect(t)
	r, w := io.Pipe()
	slow, err := c.Start(t.Context(), sh("head -c 3000000 /dev/zero"), nil, w, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	fast, err := c.Start(t.Context(), sh("echo fast"), nil, &out, nil)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := fast.Wait(); err != nil || st.Code != 0 || out.String() != "fast\n" {
		t.Fatalf("fast: %+v, %v, %q", st, err, out.String())
	}
	count := make(chan int64)
	go func() { n, _ := io.Copy(io.Discard, r); count <- n }()
	if st, err := slow.Wait(); err != nil || st.Code != 0 {
		t.Fatalf("slow: %+v, %v", st, err)
	}
	_ = w.Close() // never fails
	if n := <-count; n != 3000000 {
		t.Errorf("slow wrote %d bytes", n)
	}
}

func TestSignalReachesTheGroup(t *testing.T) {
	c, _ := connect(t)
	r, w := io.Pipe()
	p, err := c.Start(t.Context(), sh("sleep 60 & echo up; wait"), nil, w, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := p.Signal(int(syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(); err != nil || st.Signal != 9 {
		t.Errorf("%+v, %v", st, err)
	}
	if d := time.Since(begin); d > drain {
		t.Errorf("the child of the process lived on: Wait took %v", d)
	}
}

func TestStartErrors(t *testing.T) {
	c, _ := connect(t)
	for _, req := range []Request{
		{},
		{Argv: []string{"no-such-program"}},
		{Argv: []string{"/no/such"}},
		{Files: "/no/such"},
	} {
		if _, err := c.Start(t.Context(), req, nil, nil, nil); err == nil {
			t.Errorf("%+v started", req)
		}
	}
}

// A program for another processor is refused with its name.
func TestForeignProgram(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Skip("no /proc")
	}
	self[18], self[19] = 22, 0 // e_machine: S390
	name := filepath.Join(t.TempDir(), "foreign")
	if err := os.WriteFile(name, self, 0o755); err != nil {
		t.Fatal(err)
	}
	c, _ := connect(t)
	_, err = c.Start(t.Context(), Request{Argv: []string{name}, Dir: "/", Memlock: -1}, nil, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "it is a program for EM_S390, and this host is ") {
		t.Errorf("got %v", err)
	}
}

func TestBrokenConnection(t *testing.T) {
	c, _ := connect(t)
	p, err := c.Start(t.Context(), sh("sleep 60"), nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); !errors.Is(err, ErrBroken) {
		t.Errorf("Wait: %v", err)
	}
	if _, err := c.Start(context.Background(), sh("true"), nil, nil, nil); !errors.Is(err, ErrBroken) {
		t.Errorf("Start: %v", err)
	}
}

func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.MkdirAll(filepath.Join(dir, "e"), 0o755); err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("zrdma"), 200_000)
	if err := os.WriteFile(filepath.Join(dir, "e", "f"), big, 0o640); err != nil {
		t.Fatal(err)
	}
	c, _ := connect(t)
	var out bytes.Buffer
	p, err := c.Start(t.Context(), Request{Files: dir}, nil, &out, nil)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(); err != nil || st != (Status{}) {
		t.Fatalf("%+v, %v", st, err)
	}
	tr := tar.NewReader(&out)
	var names []string
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if h.Name == "d/e/f" {
			if got, err := io.ReadAll(tr); err != nil || !bytes.Equal(got, big) {
				t.Errorf("content differs (%v)", err)
			}
		}
	}
	if got := strings.Join(names, " "); got != "d d/e d/e/f" {
		t.Errorf("names %q", got)
	}
}

func TestHelloAndKmsg(t *testing.T) {
	a, b := net.Pipe()
	s := NewServer(a)
	lines := make(chan string, 1)
	c := NewClient(b, func(rec []byte) { lines <- string(rec) })
	go func() { _ = s.Serve() }()
	go func() {
		_ = s.Ready(Hello{Kernel: "6.1", Devices: []string{"rxe0"}})
		_ = s.Kmsg([]byte("line\n"))
	}()
	h, err := c.WaitReady(t.Context())
	if err != nil || h.Kernel != "6.1" || len(h.Devices) != 1 {
		t.Errorf("%+v, %v", h, err)
	}
	if got := <-lines; got != "line\n" {
		t.Errorf("kmsg %q", got)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
}
