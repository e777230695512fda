//go:build !linux

package roce

import "os"

// mayUseQKey says whether the process may use a controlled Q_Key, one with the
// high bit.
func mayUseQKey() bool { return os.Geteuid() == 0 }
