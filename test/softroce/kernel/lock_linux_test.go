package kernel

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"
)

func TestLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cache", "lock")
	unlock, err := Lock(t.Context(), name, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
	defer cancel()
	if _, err := Lock(ctx, name, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the second lock: %v", err)
	}
	unlock()
	unlock, err = Lock(t.Context(), name, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// What a killed download left behind does not count as a kernel.
func TestHalfFilledCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "debian-6.1")
	if k, err := cached(dir); err == nil {
		t.Errorf("an empty cache has %+v", k)
	}
}
