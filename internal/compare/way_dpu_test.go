package compare

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/examples/blockstore/block"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

const storeAt, agentAt = "127.78.0.2:7471", "127.78.0.1:7472" // nobody else's

// agentFor runs an agent that reaches the store at storeAt when it is there. It
// returns where it listens.
func agentFor(t *testing.T) string {
	quiet := slog.New(slog.DiscardHandler)
	d, err := qp.Open(qp.DeviceConfig{Name: "soft:127.78.0.1", Logger: quiet, Pool: mr.PoolConfig{Memory: mr.Config{Huge: mr.HugeOff}}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { // as zrdma agent does: it waits for the store, then for hosts
		defer close(ended)
		var cl *rpc.Client
		for {
			var err error
			if cl, err = rpc.Dial(ctx, storeAt, rpc.Config{Device: d, Logger: quiet}); err == nil || ctx.Err() != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if cl == nil {
			return
		}
		defer cl.Close()
		a, err := dpu.NewAgent(dpu.AgentConfig{Device: d, Logger: quiet, MaxBlock: block.MaxBlock, Backends: map[uint32]dpu.Backend{0: block.Client{Client: cl}}})
		if err != nil {
			return
		}
		defer a.Close()
		l, err := a.Listen(ctx, agentAt)
		if err != nil {
			return
		}
		go a.Serve(l)
		<-ctx.Done()
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		require.NoError(t, d.Close())
	})
	return agentAt
}

// Blocks come through an agent, in each of several rounds, and are right.
func TestThroughAnAgent(t *testing.T) {
	t.Setenv(EnvStore, storeAt)
	t.Setenv(EnvAgent, agentFor(t))
	addr, _, _ := serve(t, &Server{})
	r, err := Run(t.Context(), Config{Addr: addr, Device: SoftDevice, Job: small(), Ways: []string{"dpu"}, Rounds: 2})
	require.NoError(t, err)
	require.Empty(t, r.Ways[0].Cannot)
	require.Len(t, r.Ways[0].Runs, 2)
	require.EqualValues(t, 49*small().Block, r.Ways[0].Runs[1].Bytes)
}

// A store's address that makes no sense is said at the client.
func TestBadStoreAddress(t *testing.T) {
	t.Setenv(EnvStore, "nonsense")
	t.Setenv(EnvAgent, "127.78.0.9:7472")
	addr, _, _ := serve(t, &Server{})
	r, err := Run(t.Context(), Config{Addr: addr, Device: SoftDevice, Job: small(), Ways: []string{"dpu"}, Rounds: 1})
	require.NoError(t, err)
	require.Contains(t, r.Ways[0].Cannot, "an address with a port is due")
}

// Only the client's machine needs to know the agent.
func TestServerNeedsNoAgent(t *testing.T) {
	t.Setenv(EnvAgent, "")
	require.ErrorContains(t, dpuWay.can(), EnvAgent)
	j := small()
	_, src, err := (&Server{}).prepare(message{Way: dpuWay.name, Job: &j}, nil)
	require.NoError(t, err)
	src.close()
}
