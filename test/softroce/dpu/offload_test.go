package dpu

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// result is what examples/offload prints of a phase.
type result struct {
	Phase         string
	Path          string
	Blocks, Bytes int64
	Seconds       float64
	CPUMachine    float64 `json:"cpu_machine_s"`
	MachinePerGB  float64 `json:"cpu_machine_s_gb"`
	ProcessPerGB  float64 `json:"cpu_process_s_gb"`
	Direct        int64
	Staged        int64
	FellBack      int64 `json:"fell_back"`
	Replayed      int64
	Indeterminate int64
	AgentsLost    int64   `json:"agents_lost"`
	FallBackMaxMs float64 `json:"fall_back_ms"`
	FencedMaxMs   float64 `json:"lost_fenced_ms"`
	MaxMs         float64 `json:"max_ms"`
	P50Ms         float64 `json:"p50_ms"`
	Leaked        int
}

func results(t *testing.T, out string) (all []result) {
	t.Helper()
	for _, l := range lines(out, `{"phase"`) {
		r := result{}
		require.NoError(t, json.Unmarshal([]byte(l), &r))
		all = append(all, r)
	}
	require.NotEmpty(t, all, out)
	return all
}

const (
	storagePort = ":7471"
	agentPort   = ":7472"
	// lease is long for machines that share two processors, and patient where nothing
	// is to happen to the agent.
	lease   = "3s"
	patient = "30s"
)

func (b *bed) storage() string { return b.Host(onStore).IP(0) + storagePort }

// agent starts the agent on the DPU and waits until it listens.
func (b *bed) agent(t *testing.T) *process {
	t.Helper()
	p := b.background(t, onDPU, "zrdma", "agent", "--device", "rxe0", "--listen", agentPort, "--storage", b.storage(), "--wait", "60s")
	p.says(t, "agent on")
	return p
}

func (b *bed) hostArgs(lease string, more ...string) []string {
	return append([]string{"--role", "host", "--device", "rxe0", "--storage", b.storage(), "--agent", b.Host(onDPU).IP(0) + agentPort, "--lease", lease}, more...)
}

// offload: blocks of the host through the agent on the DPU, whatever becomes of that.
func (b *bed) offload(t *testing.T) {
	s := b.background(t, onStore, "offload", "--role", "storage", "--device", "rxe0", "--listen", storagePort, "--dir", "/tmp/offload")
	s.says(t, "storage on")
	t.Run("verified", b.verified)
	t.Run("killed", func(t *testing.T) {
		b.versions(t, func(t *testing.T, agent *process) {
			agent.end()
			t.Log("agent killed")
			time.Sleep(3 * time.Second)
			b.agent(t)
		})
	})
	t.Run("hung", func(t *testing.T) {
		b.versions(t, func(t *testing.T, agent *process) {
			require.NoError(t, agent.Signal(syscall.SIGSTOP))
			time.Sleep(6 * time.Second)
			// What it was doing it does now.
			require.NoError(t, agent.Signal(syscall.SIGCONT))
		})
	})
	t.Run("partitioned", func(t *testing.T) {
		b.versions(t, func(t *testing.T, agent *process) {
			require.NoError(t, b.Hub(0).Partition(onHost, onDPU))
			time.Sleep(6 * time.Second)
			require.NoError(t, b.Hub(0).Heal(onHost, onDPU))
		})
	})
	t.Run("zombie", func(t *testing.T) { b.zombie(t) })
	t.Run("control without a fence", func(t *testing.T) { b.zombie(t, "--no-fence") })
	t.Run("processor", b.processor)
}

// verified: all go through the agent, and what comes back is what was written.
func (b *bed) verified(t *testing.T) {
	agent := b.agent(t)
	out := b.run(t, onHost, "offload", b.hostArgs(patient, "--op", "all", "--deadline", "30s", "--path", "staged", "--blocks", "16", "--size", "1048576", "--json")...)
	for _, r := range results(t, out) {
		require.EqualValues(t, 16, r.Staged, out)
		require.Zero(t, r.Leaked)
		t.Logf("%s: %d blocks of 1 MiB through the agent in %.1f s, half of the calls within %.0f ms", r.Phase, r.Blocks, r.Seconds, r.P50Ms)
	}
	require.NoError(t, agent.Signal(syscall.SIGTERM))
	require.NoError(t, <-agent.done, agent.out.String())
	agent.once.Do(func() {})
}

// versions writes newer and newer versions of blocks, and reads each back, while
// something happens to the agent: what gets lost, comes late or is done twice brings
// a wrong version back.
func (b *bed) versions(t *testing.T, happens func(*testing.T, *process)) {
	agent := b.agent(t)
	h := b.background(t, onHost, "offload", b.hostArgs(lease, "--op", "versions", "--duration", "25s", "--path", "auto", "--min-size", "-1",
		"--size", "262144", "--blocks", "8", "--events", "--json")...)
	h.says(t, "agent up")
	time.Sleep(5 * time.Second)
	happens(t, agent)
	err := <-h.done
	h.once.Do(func() {})
	out := h.out.String()
	require.NoError(t, err, "%s\nthe agent: %s", out, agent.out.String())
	for _, l := range lines(out, "agent ") {
		t.Log(l)
	}
	r := results(t, out)[0]
	require.Positive(t, r.AgentsLost)
	require.Positive(t, r.FellBack, "nothing was under way when it happened")
	require.Zero(t, r.Indeterminate, "the store keeps a ledger: nothing may stay unknown")
	require.Zero(t, r.Leaked)
	require.GreaterOrEqual(t, len(lines(out, "agent up")), 2, "the host did not come back to its agent")
	t.Logf("%d calls in %.1f s, %d through the agent, %d direct, %d fell back, %d writes replayed; fenced %.1f ms after the loss; longest call that fell back %.0f ms (lease %s)",
		r.Blocks, r.Seconds, r.Staged, r.Direct, r.FellBack, r.Replayed, r.FencedMaxMs, r.FallBackMaxMs, lease)
}

// zombie: an agent hangs in the middle of a read, is given up, and then writes into
// the host's memory. Without a fence that must be seen.
func (b *bed) zombie(t *testing.T, more ...string) {
	agent := b.background(t, onDPU, "offload", "--role", "agent", "--device", "rxe0", "--listen", agentPort, "--storage", b.storage(), "--stall-after", "1", "--stall", "7s")
	agent.says(t, "agent on")
	out := b.run(t, onHost, "offload", b.hostArgs(lease, append([]string{"--op", "zombie", "--wait", "14s"}, more...)...)...)
	require.Contains(t, agent.out.String(), "goes on, late")
	for _, l := range lines(out, "zombie:") {
		t.Log(strings.TrimSpace(l))
	}
	require.Len(t, lines(out, "zombie:"), 1)
}
