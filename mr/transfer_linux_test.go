package mr

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

// peer does one operation on what is granted to it, and the grant is revoked.
func (l *link) peer(t *testing.T, g *Granter, b Buf, op verbs.WROpcode, local *Region) Buf {
	t.Helper()
	d := DeviceReads
	if op == verbs.WRRDMAWrite {
		d = DeviceWrites
	}
	a, e, err := l.pair()
	require.NoError(t, err)
	grant, err := g.Grant(t.Context(), e, b, d)
	require.NoError(t, err)
	lb, err := local.Buf(0, b.Len())
	require.NoError(t, err)
	use := DeviceReads
	if d == DeviceReads {
		use = DeviceWrites
	}
	f, err := lb.Take(use)
	require.NoError(t, err)
	sge, err := f.SGE(l.ap)
	require.NoError(t, err)
	to := grant.Remote()
	_, err = a.q.PostSend([]verbs.SendWR{{Opcode: op, Flags: verbs.SendSignaled, RemoteAddr: to.Addr, RKey: to.RKey, SGList: []verbs.SGE{sge}}})
	require.NoError(t, err)
	wc, err := a.wait(20 * time.Second)
	require.NoError(t, err)
	require.NoError(t, verbs.WCErr(&wc))
	require.NoError(t, f.Complete().Release())
	b, err = grant.Revoke(t.Context())
	require.NoError(t, err)
	require.NoError(t, a.Close())
	require.NoError(t, e.Close())
	return b
}

// A file's pages are read and written by a peer, without a copy in this program.
func TestFileOverTheWire(t *testing.T) {
	l := newLink(t)
	g, err := NewGranter(l.bp, GranterConfig{})
	require.NoError(t, err)
	local, err := Alloc(64<<10, Config{Huge: HugeOff}, l.ap)
	require.NoError(t, err)
	content := make([]byte, 64<<10)
	for i := range content {
		content[i] = byte(i * 7 / 3)
	}
	dir, err := os.MkdirTemp("/dev/shm", "mr") // tmpfs takes writes by a device
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	for _, name := range []string{filepath.Join(dir, "a"), filepath.Join(t.TempDir(), "b")} {
		require.NoError(t, os.WriteFile(name, content, 0o600))
		f, err := os.Open(name)
		require.NoError(t, err)
		r, err := MapFile(f, FileConfig{Offset: 4096}, l.bp)
		require.NoError(t, f.Close())
		if err != nil { // an old kernel
			require.ErrorIs(t, err, syscall.EFAULT)
			require.ErrorContains(t, err, "os.O_RDWR")
			require.NotEmpty(t, l.b.SysfsPath(), "the software device is not the kernel")
			f, err = os.OpenFile(name, os.O_RDWR, 0)
			require.NoError(t, err)
			r, err = MapFile(f, FileConfig{Offset: 4096}, l.bp)
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}
		require.True(t, r.ReadOnly())
		b, err := r.Buf(1000, 20_000)
		require.NoError(t, err)
		b = l.peer(t, g, b, verbs.WRRDMARead, local)
		require.Equal(t, content[5096:25096], local.mem[:20_000])
		require.NoError(t, b.Release())
		require.NoError(t, r.Close())
	}
	name := filepath.Join(dir, "a")
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	r, err := MapFile(f, FileConfig{Writable: true}, l.bp)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	b, err := r.Buf(10_000, 5000)
	require.NoError(t, err)
	copy(local.mem, bytes.Repeat([]byte("zrdma"), 1000))
	b = l.peer(t, g, b, verbs.WRRDMAWrite, local)
	require.NoError(t, b.Release())
	require.NoError(t, r.Sync(10_000, 5000))
	require.NoError(t, r.Close())
	got, err := os.ReadFile(name)
	require.NoError(t, err)
	copy(content[10_000:], local.mem[:5000])
	require.Equal(t, content, got)
	require.NoError(t, local.Close())
	require.NoError(t, g.Close())
}

// A range that was unmapped and mapped again, without Invalidate: the peer reads
// what is there now, not the pages of before.
func TestCacheOverTheWire(t *testing.T) {
	l := newLink(t)
	g, err := NewGranter(l.bp, GranterConfig{})
	require.NoError(t, err)
	c, err := NewCache(CacheConfig{}, l.bp)
	require.NoError(t, err)
	local, err := Alloc(16<<10, Config{Huge: HugeOff}, l.ap)
	require.NoError(t, err)
	m := mapped(t, 4)
	for round := range byte(5) {
		for i := range m {
			m[i] = round + 1
		}
		b, err := c.Buf(m)
		require.NoError(t, err)
		b = l.peer(t, g, b, verbs.WRRDMARead, local)
		require.Equal(t, m, local.mem[:len(m)])
		require.NoError(t, b.Release())
		if round%2 == 0 {
			mapAt(t, m)
		}
	}
	st := c.Stats()
	require.EqualValues(t, 2, st.Remapped)
	require.EqualValues(t, 2, st.Hits)
	require.NoError(t, c.Close())
	require.NoError(t, local.Close())
	require.NoError(t, g.Close())
}
