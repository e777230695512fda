package guest

import (
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/zrdma/zrdma/test/softroce/internal/agent"
)

// timings notes when each step of the boot was done.
type timings struct {
	mu    sync.Mutex // guards steps
	steps []agent.HelloTiming
}

func (t *timings) mark(step string) {
	now := uptime()
	t.mu.Lock()
	t.steps = append(t.steps, agent.HelloTiming{Step: step, Uptime: now})
	t.mu.Unlock()
}

// uptime is 0 if it cannot be read: it is only ever printed.
func uptime() float64 {
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), " ")
	s, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return s
}
