//go:build !linux

package doctor

import "errors"

func memlock() (Limit, error) { return Limit{}, errors.ErrUnsupported }
