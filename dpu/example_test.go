package dpu_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/zrdma/zrdma/dpu"
)

// What a machine has, each statement with what it rests on. This one has nothing:
// its sysfs is an empty folder.
func Example() {
	root, err := os.MkdirTemp("", "zrdma")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(root)
	inv, err := dpu.Discover(context.Background(), dpu.Config{Root: root, Arch: "amd64"}) // zero: this machine
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range inv.Cards {
		fmt.Println(c.Mode.Value, c.Mode.Evidence)
	}
	fmt.Println(inv.Arch, len(inv.Cards), "cards,", len(inv.RDMA), "RDMA devices")
	// Output: amd64 0 cards, 0 RDMA devices
}

// The settings of a BlueField, from what mstconfig printed.
func ExampleParseMstconfig() {
	m, err := dpu.ParseMstconfig(`
Device #1:
----------

Device type:        BlueField3
Name:               900-9D3B6-00CV-A_Ax
Device:             0000:03:00.0

Configurations:                                     Next Boot
        INTERNAL_CPU_MODEL                          EMBEDDED_CPU(1)
`)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.DeviceType, m.Params["INTERNAL_CPU_MODEL"], "in force:", m.InForce)
	// Output: BlueField3 EMBEDDED_CPU(1) in force: false
}
