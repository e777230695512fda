package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/internal/perf"
)

// progress is a line on the terminal that says how far a measurement is.
type progress struct {
	w    io.Writer // nil: no terminal, no line
	c    *perf.Client
	quit chan struct{}
	done chan struct{}

	mu    sync.Mutex
	what  string // guarded by mu, as shown
	shown bool
}

// terminal says whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}

func startProgress(w io.Writer, c *perf.Client, wanted bool) *progress {
	p := &progress{c: c, quit: make(chan struct{}), done: make(chan struct{})}
	if wanted && terminal(w) {
		p.w = w
	}
	go p.run()
	return p
}

func (p *progress) run() {
	defer close(p.done)
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-p.quit:
			return
		case <-t.C:
			p.show()
		}
	}
}

func (p *progress) show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w == nil || p.what == "" {
		return
	}
	p.shown = true
	fmt.Fprint(p.w, "\r\x1b[K"+progressLine(p.what, p.c.Progress()))
}

func progressLine(what string, x perf.Progress) string {
	s := x.Elapsed.Seconds()
	if s <= 0 {
		return what + "  connecting"
	}
	return fmt.Sprintf("%s  %.1f s  %.4g MB/s  %.0f msg/s", what, s, float64(x.Bytes)/1e6/s, float64(x.Messages)/s)
}

func (p *progress) at(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what = what
}

// hide takes the line away, until the next tick.
func (p *progress) hide() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

func (p *progress) stop() {
	close(p.quit)
	<-p.done
	p.hide()
}
