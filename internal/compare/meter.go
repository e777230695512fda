package compare

import (
	"sync"
	"sync/atomic"
)

// meter counts what a way does at one end; its methods may be called from any
// goroutine, and before the measurement begins, which start sets to zero.
type meter struct {
	calls   atomic.Int64 // system calls that our code made to move data
	copied  atomic.Int64 // bytes that our code copied
	unknown atomic.Bool  // nobody knows how many calls: a driver makes them
	device  func() (calls, copied int64)

	mu     sync.Mutex
	notes  []string // guarded by mu
	base   [2]int64 // guarded by mu: device at the start
	before usage    // guarded by mu
}

func (m *meter) call() { m.calls.Add(1) }

// note says something about the run, once.
func (m *meter) note(s string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.notes {
		if n == s {
			return
		}
	}
	m.notes = append(m.notes, s)
}

func (m *meter) allNotes() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.notes...)
}

func (m *meter) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls.Store(0)
	m.copied.Store(0)
	if m.device != nil {
		m.base[0], m.base[1] = m.device()
	}
	m.before = readUsage()
}

// Side is what one end of a run has used.
type Side struct {
	UserSeconds     float64 `json:"user_seconds"`
	SystemSeconds   float64 `json:"system_seconds"`
	VoluntarySwitch int64   `json:"voluntary_switches"`
	ForcedSwitch    int64   `json:"involuntary_switches"`
	// Calls are system calls that moved data, of our code and of the software
	// device; null where a kernel driver or a library makes them uncounted.
	Calls *int64 `json:"data_calls"`
	// AllCalls are all system calls of the process, those of the Go runtime
	// included, as the kernel counted them; null where it does not let us ask.
	AllCalls *int64 `json:"all_calls"`
	// Copied is bytes copied in user space, by us and by the software device.
	Copied int64 `json:"copied_bytes"`
	// Machine is the time that all processors of the host were busy, with whatever.
	Machine float64  `json:"machine_seconds"`
	Notes   []string `json:"notes,omitempty"`
}

func (m *meter) stop() Side {
	after := readUsage()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Side{
		UserSeconds: after.user - m.before.user, SystemSeconds: after.system - m.before.system,
		VoluntarySwitch: after.voluntary - m.before.voluntary, ForcedSwitch: after.forced - m.before.forced,
		Copied: m.copied.Load(), Machine: after.machine - m.before.machine,
	}
	if m.before.allCalls >= 0 && after.allCalls >= 0 {
		n := after.allCalls - m.before.allCalls
		s.AllCalls = &n
	}
	n := m.calls.Load()
	if m.device != nil {
		c, b := m.device()
		n, s.Copied = n+c-m.base[0], s.Copied+b-m.base[1]
	}
	if !m.unknown.Load() {
		s.Calls = &n
	}
	return s
}
