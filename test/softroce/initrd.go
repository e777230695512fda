package softroce

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/zrdma/zrdma/test/softroce/internal/cpio"
	"github.com/zrdma/zrdma/test/softroce/internal/guest"
	"github.com/zrdma/zrdma/test/softroce/kernel"
)

// bootModules is what a guest is booted with, besides what these need.
var bootModules = []string{
	"virtio_pci", "virtio_console", "virtio_net", "9pnet_virtio", "9p", "overlay",
	"crc32_generic", "ib_uverbs", "rdma_rxe", "rdma_ucm",
}

// initrd is the part of the initramfs that all guests of a cluster share.
type initrd struct {
	kernel  *kernel.Kernel
	archive []byte
	modules []string // files in the archive, in the order to load them
}

func newInitrd(ctx context.Context, k *kernel.Kernel, initFile string) (*initrd, error) {
	mods, err := kernel.ReadModules(k.Modules)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range bootModules {
		// Later kernels have the checksum in their library, not in a module.
		if n != "crc32_generic" || mods.Has(n) {
			names = append(names, n)
		}
	}
	files, err := mods.Order(names...)
	if err != nil {
		return nil, err
	}
	rd := &initrd{kernel: k}
	var buf bytes.Buffer
	w := cpio.NewWriter(&buf)
	for _, f := range files {
		data, err := kernel.ReadModule(ctx, filepath.Join(k.Modules, f))
		if err != nil {
			return nil, err
		}
		name := "/modules/" + trimCompression(filepath.Base(f))
		rd.modules = append(rd.modules, name)
		if err := w.File(name, 0o644, data); err != nil {
			return nil, err
		}
	}
	bin, err := os.ReadFile(initFile)
	if err != nil {
		return nil, fmt.Errorf("read guest init: %w", err)
	}
	if err := w.File("/init", 0o755, bin); err != nil {
		return nil, err
	}
	// Process 1 gets its stdout from here, before devtmpfs is mounted.
	if err := w.CharDev("/dev/console", 0o600, 5, 1); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	rd.archive = buf.Bytes()
	return rd, nil
}

// forHost returns a second archive, to be put behind the shared one.
func (rd *initrd) forHost(g guest.Config) ([]byte, error) {
	g.Modules, g.ModulesDir, g.Release = rd.modules, rd.kernel.Modules, rd.kernel.Release
	if !slices.ContainsFunc(g.NICs, func(n guest.NIC) bool { return n.Rxe != "" }) {
		// Once loaded it has the port, with or without a device.
		g.Modules = slices.DeleteFunc(slices.Clone(g.Modules), func(f string) bool { return filepath.Base(f) == "rdma_rxe.ko" })
	}
	conf, err := json.Marshal(g)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := cpio.NewWriter(&buf)
	if err := w.File("/"+guest.ConfigFile, 0o644, conf); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func trimCompression(file string) string {
	switch ext := filepath.Ext(file); ext {
	case ".xz", ".zst", ".gz":
		return file[:len(file)-len(ext)]
	}
	return file
}
