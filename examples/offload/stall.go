package main

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/internal/dpufault"
)

// stallAgents makes agents of this process hang for a while, as a stopped process
// would, and then go on with what they were about to do: write into the host's
// memory, late. A correct host has taken the right to that away.
func (o *options) stallAgents(out io.Writer) {
	if o.stallAfter <= 0 {
		return
	}
	var n atomic.Int64
	var once sync.Once
	hung := make(chan struct{})
	over := make(chan struct{})
	dpufault.SetAgent(dpufault.Agent{Deaf: true, Gate: func(point string) {
		if point == "data" && n.Add(1) >= int64(o.stallAfter) {
			once.Do(func() {
				fmt.Fprintf(out, "agent hangs for %v\n", o.stall)
				close(hung)
				time.AfterFunc(o.stall, func() {
					fmt.Fprintln(out, "agent goes on, late")
					close(over)
				})
			})
		}
		select {
		case <-hung:
			<-over
		default:
		}
	}})
}
