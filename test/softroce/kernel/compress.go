package kernel

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// ReadModule reads a module file and unpacks it if its name ends in .xz, .zst or .gz.
// The guest's init has no decompressor.
func ReadModule(ctx context.Context, path string) ([]byte, error) {
	tools := map[string][2]string{".xz": {"xz", "xz-utils"}, ".zst": {"zstd", "zstd"}, ".gz": {"gzip", "gzip"}}
	for suffix, tool := range tools {
		if !strings.HasSuffix(path, suffix) {
			continue
		}
		if err := Need(map[string]string{tool[0]: tool[1]}); err != nil {
			return nil, err
		}
		var stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, tool[0], "-dc", path)
		cmd.Stderr = &stderr
		data, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("kernel: unpack module %s: %w: %s", moduleName(path), err, bytes.TrimSpace(stderr.Bytes()))
		}
		return data, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("kernel: read module: %w", err)
	}
	return data, nil
}
