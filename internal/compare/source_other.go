//go:build !linux

package compare

import "os"

// memoryFile is a file in the temporary folder here, which stays in the page cache.
func memoryFile(name string) (*os.File, string, error) {
	f, err := os.CreateTemp("", name+"-*")
	if err == nil {
		err = os.Remove(f.Name())
	}
	return f, "the page cache (no memfd_create here)", err
}
