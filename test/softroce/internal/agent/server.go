//go:build unix

package agent

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"syscall"
)

// Server is the guest's end of a connection.
type Server struct {
	// Sync handles a request for a marker in the kernel log. May be nil.
	Sync func(marker string)
	// Wrap may replace the argv of a process, to set limits. May be nil.
	Wrap func(req *Request)

	conn io.ReadWriteCloser
	fw   frameWriter

	mu    sync.Mutex // guards tasks
	tasks map[uint32]*task
}

// NewServer takes ownership of conn.
func NewServer(conn io.ReadWriteCloser) *Server {
	return &Server{conn: conn, fw: frameWriter{w: conn}, tasks: make(map[uint32]*task)}
}

// Ready tells the host that the guest is set up.
func (s *Server) Ready(h Hello) error { return s.fw.writeJSON(kindHello, 0, h) }

// Kmsg sends a piece of the kernel's log.
func (s *Server) Kmsg(b []byte) error { return s.fw.write(kindKmsg, 0, b) }

// Serve runs what the host asks for until the connection ends.
func (s *Server) Serve() error {
	defer s.stop()
	for {
		f, err := readFrame(s.conn)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("agent: read: %w", err)
		}
		if err := s.handle(f); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
}

func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		t.signal(syscall.SIGKILL)
		t.abort()
	}
	_ = s.conn.Close() // nobody is left to tell
}

func (s *Server) handle(f frame) error {
	switch f.kind {
	case kindStart:
		var req Request
		if err := json.Unmarshal(f.body, &req); err != nil {
			return fmt.Errorf("start: %w", err)
		}
		t := newTask(&s.fw, f.id, req)
		s.mu.Lock()
		s.tasks[f.id] = t
		s.mu.Unlock()
		go s.run(t)
		return nil
	case kindSync:
		if s.Sync != nil {
			s.Sync(string(f.body))
		}
		return nil
	}
	s.mu.Lock()
	t := s.tasks[f.id]
	s.mu.Unlock()
	if t == nil {
		return nil // it has ended meanwhile
	}
	switch {
	case f.kind == kindSignal && len(f.body) == 4:
		t.signal(syscall.Signal(binary.BigEndian.Uint32(f.body)))
	case f.kind == kindData && len(f.body) > 0 && f.body[0] == 0:
		t.stdin.push(f.body[1:])
	case f.kind == kindEOF && len(f.body) == 1 && f.body[0] == 0:
		t.stdin.end()
	case f.kind == kindAck && len(f.body) == 5 && (f.body[0] == 1 || f.body[0] == 2):
		t.out[f.body[0]].ack(int(binary.BigEndian.Uint32(f.body[1:])))
	default:
		return fmt.Errorf("unexpected frame of kind %d, %d bytes", f.kind, len(f.body))
	}
	return nil
}

func (s *Server) run(t *task) {
	var st Status
	if t.req.Files != "" {
		st = t.files()
	} else {
		if s.Wrap != nil {
			s.Wrap(&t.req)
		}
		st = t.exec()
	}
	s.mu.Lock()
	delete(s.tasks, t.id)
	s.mu.Unlock()
	_ = s.fw.writeJSON(kindExit, t.id, st) // a broken connection ends Serve by itself
}
