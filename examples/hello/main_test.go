package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func Example() {
	os.Setenv("ZRDMA_DEVICE", "soft:127.0.13.1")
	main()
	// Output: "block 7" of 1048576 bytes
}

// The README shows this program as it is.
func TestREADME(t *testing.T) {
	src, err := os.ReadFile("main.go")
	require.NoError(t, err)
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, body, ok := strings.Cut(string(src), "func main() {\n")
	require.True(t, ok)
	body, _, ok = strings.Cut(body, "\n}\n")
	require.True(t, ok)
	require.Contains(t, string(readme), "func main() {\n"+body+"\n}\n")
}
