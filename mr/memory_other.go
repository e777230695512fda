//go:build !linux

package mr

import (
	"errors"
	"fmt"
)

var pageSize = 4096

func mapAnon(size int, huge HugePages, _ int) (mapping, error) {
	if huge == HugeOnly {
		return mapping{}, fmt.Errorf("mr: huge pages: %w", errors.ErrUnsupported)
	}
	return goMemory(size), nil
}
