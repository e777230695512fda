package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmanet"
	"github.com/zrdma/zrdma/rdmatest"
)

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	file := make([]byte, 3<<20+17)
	rand.NewChaCha8([32]byte{}).Read(file)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "disk.img"), file, 0o600))

	net := rdmatest.NewNetwork(t, 1)
	open := func() *qp.Device {
		d, err := qp.Open(qp.DeviceConfig{Context: net.Device(t).Context})
		require.NoError(t, err)
		// net/http closes connections in goroutines of its own.
		t.Cleanup(func() {
			require.Eventually(t, func() bool { return d.Close() == nil }, 10*time.Second, 5*time.Millisecond, "connections are left")
		})
		return d
	}
	l, err := rdmanet.Listen(t.Context(), "10.0.0.1:0", rdmanet.Config{Device: open()})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, dir, l) }()

	d := &rdmanet.Dialer{Config: rdmanet.Config{Device: open()}}
	url := "http://" + l.Addr().String()
	var got bytes.Buffer
	require.NoError(t, get(t.Context(), d, url+"/disk.img", &got))
	require.True(t, bytes.Equal(file, got.Bytes()))
	require.ErrorContains(t, get(t.Context(), d, url+"/other", &got), "404")
	require.Error(t, get(t.Context(), d, "http://10.0.0.1:1/", &got), "nobody listens there")
	stop()
	require.NoError(t, <-served)
}

func TestNoFolder(t *testing.T) {
	require.ErrorIs(t, listen(t.Context(), filepath.Join(t.TempDir(), "none"), "127.0.0.1:0"), os.ErrNotExist)
}
