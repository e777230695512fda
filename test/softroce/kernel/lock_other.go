//go:build !linux

package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Lock is for Linux only.
func Lock(context.Context, string, io.Writer) (func(), error) {
	return nil, fmt.Errorf("kernel: lock: %w", errors.ErrUnsupported)
}
