package userland

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestArrange(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string) {
		p := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(text), 0o755))
	}
	put("lib/aarch64-linux-gnu/libm.so.6", "m")
	put("usr/lib/aarch64-linux-gnu/libibverbs.so.1", "v")
	put("usr/lib/aarch64-linux-gnu/gconv/big", "")
	require.NoError(t, os.Symlink("/lib/aarch64-linux-gnu/libm.so.6", filepath.Join(root, "usr/lib/aarch64-linux-gnu/libm.so")))
	put("bin/dash", "d")
	put("usr/share/doc/x", "")
	put("var/lib/x", "")
	put("etc/passwd", "")
	put("etc/libibverbs.d/rxe.driver", "driver rxe")
	put("usr/include/stdio.h", "")
	require.NoError(t, arrange(root))
	for name, want := range map[string]string{
		"lib/aarch64-linux-gnu/libm.so.6":       "m",
		"usr/lib/aarch64-linux-gnu/libm.so":     "m",
		"lib/aarch64-linux-gnu/libibverbs.so.1": "v",
		"bin/sh":                                "d",
		"etc/libibverbs.d/rxe.driver":           "driver rxe",
		"usr/include/stdio.h":                   "",
	} {
		b, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		require.Equal(t, want, string(b), name)
	}
	for _, name := range []string{"usr/share", "var", "etc/passwd", "usr/lib/aarch64-linux-gnu/gconv"} {
		require.NoFileExists(t, filepath.Join(root, name))
		require.NoDirExists(t, filepath.Join(root, name))
	}
}

// A half-unpacked folder has another name, so it never counts.
func TestHalfFilled(t *testing.T) {
	cache := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(cache, "userland", ".tmp-1", "tree"), 0o755))
	require.False(t, isDir(filepath.Join(cache, "userland", name("arm64"))))
	require.NotEqual(t, name("arm64"), name("amd64"))
}

func TestTwice(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"lib", "usr/lib"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, d), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, d, "x"), nil, 0o644))
	}
	require.ErrorContains(t, arrange(root), "in two packages")
}
