package cli

import (
	"errors"
	"io"

	"github.com/spf13/pflag"

	"github.com/zrdma/zrdma/internal/perf"
)

func (f *benchFlags) defineHTML(*pflag.FlagSet) {}

func writeHTML(*perf.Report, io.Writer) error { return errors.ErrUnsupported }
