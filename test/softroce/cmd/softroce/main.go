// Command softroce runs a command in VMs whose kernel has Soft-RoCE:
//
//	go run ./test/softroce/cmd/softroce run -- go test ./...
package main

import (
	"os"

	"github.com/zrdma/zrdma/test/softroce/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
