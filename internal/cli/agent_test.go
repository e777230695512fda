package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/examples/blockstore/block"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

func TestAgentUsage(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(p, []byte(text), 0o600))
		return p
	}
	empty := file("empty", "\n")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no storage":     {nil, "--storage"},
		"no port":        {[]string{"-s", "host"}, "HOST:PORT"},
		"handle":         {[]string{"-s", "x=host:1"}, "a handle is a number"},
		"handle twice":   {[]string{"-s", "0=host:1", "-s", "0=host:2"}, "handle 0 is host:1 already"},
		"chunk":          {[]string{"-s", "host:1", "--chunk", "5"}, "4096 to"},
		"in flight":      {[]string{"-s", "host:1", "--in-flight", "5000"}, "less than a chunk"},
		"batch":          {[]string{"-s", "host:1", "--batch", "0"}, "at least 1"},
		"wait":           {[]string{"-s", "host:1", "--wait", "-1"}, "not negative"},
		"argument":       {[]string{"-s", "host:1", "more"}, `"more"`},
		"tenants text":   {[]string{"-s", "host:1", "--tenants", file("a", "no json")}, "--tenants"},
		"tenants none":   {[]string{"-s", "host:1", "--tenants", file("b", "{}")}, "has none"},
		"tenants field":  {[]string{"-s", "host:1", "--tenants", file("c", `{"x": {"quota": 3}}`)}, "quota"},
		"secret is void": {[]string{"-s", "host:1", "--tenants", file("d", `{"x": {"secret_file": "`+empty+`"}}`)}, "is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			require.Equal(t, ExitUsage, Main(append([]string{"agent"}, c.args...), &out, &errOut), errOut.String())
			require.Contains(t, errOut.String(), c.want)
		})
	}
	var out, errOut bytes.Buffer
	require.Equal(t, ExitFailed, Main([]string{"agent", "-s", "host:1", "--tenants", filepath.Join(dir, "not there")}, &out, &errOut))
	require.Equal(t, ExitNoDevice, Main([]string{"agent", "-s", "host:1", "-d", "no_such_device"}, &out, &errOut))
	require.Equal(t, ExitFailed, Main([]string{"agent", "-s", "127.77.0.9:1", "-d", "soft:127.77.0.1", "--wait", "0"}, &out, &errOut))
	require.Contains(t, errOut.String(), "block server 127.77.0.9:1")
	out.Reset()
	require.Equal(t, ExitOK, Main([]string{"agent", "--help"}, &out, &errOut))
	require.Contains(t, out.String(), "Exit codes:")
	require.Contains(t, out.String(), "zrdma agent --storage")
}

// said is output that may be read while it is written.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// The command serves a tenant with a secret, and ends in order.
func TestAgentCommand(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, []byte("s3cret\n"), 0o600))
	tenants := filepath.Join(dir, "tenants")
	require.NoError(t, os.WriteFile(tenants, []byte(`{"vm7": {"secret_file": "`+secret+`", "backends": [4], "max_ops": 8}}`), 0o600))

	open := func(addr string) *qp.Device {
		d, err := qp.Open(qp.DeviceConfig{Name: "soft:" + addr, Pool: mr.PoolConfig{Memory: mr.Config{Huge: mr.HugeOff}}})
		require.NoError(t, err)
		return d
	}
	sd, hd := open("127.77.0.3"), open("127.77.0.2")
	store, err := block.Open(filepath.Join(dir, "blocks"), sd.PD(), block.StoreConfig{NoSync: true})
	require.NoError(t, err)
	srv, err := rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: sd}})
	require.NoError(t, err)
	store.Register(srv)
	l, err := srv.Listen(t.Context(), "127.77.0.3:0")
	require.NoError(t, err)
	go srv.Serve(l)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out := &said{}
	f := &agentFlags{listen: "127.77.0.1:0", device: "soft:127.77.0.1", tenants: tenants, storage: []string{"4=" + l.Addr()}, chunk: 4096, batch: 4,
		wait: seconds(time.Minute), drain: seconds(time.Minute), report: seconds(10 * time.Millisecond)}
	ended := make(chan error, 1)
	go func() { ended <- f.run(ctx, out, out) }()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "agent on ") }, time.Minute, 10*time.Millisecond)
	_, at, _ := strings.Cut(out.String(), "agent on ")
	at, _, _ = strings.Cut(at, ",")

	direct, err := rpc.Dial(t.Context(), l.Addr(), rpc.Config{Device: hd})
	require.NoError(t, err)
	c, err := dpu.NewClient(t.Context(), dpu.ClientConfig{Device: hd, Direct: block.Client{Client: direct, Patient: true}, Agent: at, Tenant: "vm7",
		Secret: []byte("s3cret"), Backend: 4, Lease: time.Minute})
	require.NoError(t, err)
	require.True(t, c.Stats().Up)
	b, err := hd.Pool().Get(t.Context(), 20_000)
	require.NoError(t, err)
	staged := dpu.WithPath(t.Context(), dpu.Staged)
	b, err = c.Put(staged, "k", b)
	require.NoError(t, err)
	b, err = c.Get(staged, "k", b)
	require.NoError(t, err)
	require.Equal(t, 20_000, b.Len())
	require.NoError(t, b.Release())
	stop() // as a signal does
	require.NoError(t, <-ended)
	require.Contains(t, out.String(), "operations 2 (now 0, failed 0")
	require.NoError(t, c.Close())
	require.NoError(t, direct.Close())
	require.NoError(t, srv.Close())
	require.NoError(t, store.Close())
	require.NoError(t, hd.Close())
	require.NoError(t, sd.Close())
}
