// Coverage prints how many entry points of libibverbs and librdmacm Go programs
// can reach, and fails when they are fewer than docs/coverage.min.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/zrdma/zrdma/internal/coverage"
)

func main() {
	root := flag.String("root", ".", "the root of the repository")
	flag.Parse()
	r, err := coverage.Measure(os.DirFS(*root))
	if err == nil {
		r.Print(os.Stdout)
		err = r.Err()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
