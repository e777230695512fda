package cli

import (
	"bytes"
	"io"
	"sync"
)

// prefixer puts the host's name in front of every line, and writes whole lines,
// so that hosts do not write into each other's.
type prefixer struct {
	mu     *sync.Mutex // guards w, which hosts share
	w      io.Writer
	prefix string
	rest   []byte
}

func (p *prefixer) Write(b []byte) (int, error) {
	n := len(b)
	p.rest = append(p.rest, b...)
	end := bytes.LastIndexByte(p.rest, '\n') + 1
	if end == 0 {
		return n, nil
	}
	var out []byte
	for line := range bytes.Lines(p.rest[:end]) {
		out = append(append(out, p.prefix...), line...)
	}
	p.rest = append(p.rest[:0], p.rest[end:]...)
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.w.Write(out)
	return n, err
}

// flush writes a last line that has no end.
func (p *prefixer) flush() {
	if len(p.rest) > 0 {
		_, _ = p.Write([]byte("\n")) // as any output that cannot be written
	}
}
