package softroce

import (
	"bytes"
	"io"
	"strings"
	"sync"

	"github.com/zrdma/zrdma/test/softroce/internal/guest"
)

// consoleMax is how much of a console's end is kept.
const consoleMax = 256 << 10

// console keeps what a VM prints and watches for what its init says.
type console struct {
	alive  chan struct{} // closed at the first sign of life of the guest's init
	failed chan struct{} // closed when the init gave up; failure says why
	done   chan struct{} // closed at the end of the output

	mu      sync.Mutex // guards what follows
	tail    []byte
	line    []byte
	failure string
	isAlive bool
}

func newConsole(r io.Reader) *console {
	c := &console{alive: make(chan struct{}), failed: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			c.add(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	return c
}

func (c *console) add(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tail = append(c.tail, b...)
	if len(c.tail) > 2*consoleMax {
		c.tail = append([]byte(nil), c.tail[len(c.tail)-consoleMax:]...)
	}
	c.line = append(c.line, b...)
	for {
		line, rest, ok := bytes.Cut(c.line, []byte("\n"))
		if !ok {
			return
		}
		c.line = rest
		c.see(string(line))
	}
}

func (c *console) see(line string) {
	if strings.Contains(line, guest.Alive) && !c.isAlive {
		c.isAlive = true
		close(c.alive)
	}
	if _, why, ok := strings.Cut(line, guest.Failed); ok && c.failure == "" {
		c.failure = strings.TrimSpace(why)
		close(c.failed)
	}
}

func (c *console) why() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.ReplaceAll(string(c.tail), "\r", "")
}

// end returns the last lines, for an error message.
func (c *console) end() string {
	lines := strings.Split(strings.TrimRight(c.text(), "\n"), "\n")
	const show = 25
	if len(lines) > show {
		lines = lines[len(lines)-show:]
	}
	text := strings.Join(lines, "\n  | ")
	if strings.TrimSpace(text) == "" {
		return "the console is empty"
	}
	return "the end of its console:\n  | " + text
}
