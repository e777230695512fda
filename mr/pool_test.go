package mr

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func pool(t testing.TB, cfg PoolConfig) *Pool {
	t.Helper()
	_, pd := fake(t)
	p, err := NewPool(cfg, pd)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

func TestSmoke(t *testing.T) {
	p := pool(t, PoolConfig{})
	b, err := p.Get(t.Context(), 100)
	require.NoError(t, err)
	m, err := b.Bytes()
	require.NoError(t, err)
	require.Len(t, m, 100)
	require.NoError(t, b.Release())
	require.ErrorIs(t, b.Release(), ErrMoved)
	_, err = b.Bytes()
	require.ErrorIs(t, err, ErrMoved)
}

func BenchmarkPool(b *testing.B) {
	p := pool(b, PoolConfig{})
	x, err := p.Get(b.Context(), 4096)
	require.NoError(b, err)
	require.NoError(b, x.Release())
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		x, err := p.Get(ctx, 4096)
		if err != nil {
			b.Fatal(err)
		}
		if x.Release() != nil {
			b.Fatal("release")
		}
	}
}

func BenchmarkBufBytes(b *testing.B) {
	p := pool(b, PoolConfig{})
	x, err := p.Get(b.Context(), 4096)
	require.NoError(b, err)
	defer x.Release()
	n := 0
	for b.Loop() {
		m, err := x.Bytes()
		if err != nil {
			b.Fatal(err)
		}
		n += len(m)
	}
}

func BenchmarkTakeComplete(b *testing.B) {
	p := pool(b, PoolConfig{})
	x, err := p.Get(b.Context(), 4096)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		f, err := x.Take(DeviceReads)
		if err != nil {
			b.Fatal(err)
		}
		x = f.Complete()
	}
	x.Release()
}
