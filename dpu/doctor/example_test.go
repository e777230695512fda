package doctor_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/zrdma/zrdma/dpu/doctor"
)

// Findings come with the command that mends them. This machine has nothing: its
// root is an empty folder, and no memory may be locked.
func Example() {
	root, err := os.MkdirTemp("", "zrdma")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(root)
	found, err := doctor.Examine(context.Background(), doctor.Config{
		Root:    root, // zero: this machine
		Memlock: func() (doctor.Limit, error) { return doctor.Limit{}, nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range found {
		if f.Check == "modules" {
			fmt.Printf("%s: %s: %s\n%s\n", f.Level, f.Subject, f.What, f.Mend)
		}
	}
	// Output:
	// broken: ib_uverbs: programs cannot reach RDMA devices: the module is not loaded
	// modprobe ib_uverbs
}
