//go:build !linux

package mr

import (
	"errors"
	"os"
)

func mapFile(*os.File, int64, FileConfig, bool) (*Region, error) { return nil, errors.ErrUnsupported }
