package mr

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zrdma/zrdma/internal/handle"
)

// logs is what the package has said; the tests cause many of its complaints.
var logs lockedBuffer

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() > 1<<20 {
		l.b.Reset()
	}
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A verbs object that a test left open fails the run.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.NewTextHandler(&logs, nil)))
	code := m.Run()
	for end := time.Now().Add(5 * time.Second); len(handle.Live()) > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if l := handle.Live(); len(l) > 0 && code == 0 {
		fmt.Fprintln(os.Stderr, "objects left open:\n"+strings.Join(l, "\n"))
		code = 1
	}
	os.Exit(code)
}
