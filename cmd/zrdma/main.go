// Zrdma is the operator's tool: it lists RDMA devices and pings over RDMA.
package main

import (
	"os"

	"github.com/zrdma/zrdma/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr)) }
