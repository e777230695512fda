// Command init is the first process of the guest.
package main

import "github.com/zrdma/zrdma/test/softroce/internal/guest"

func main() { guest.Main() }
