package compare

import (
	"context"
	"fmt"
	"strings"
)

// way is one of the ways to move bytes.
type way struct {
	name  string
	title string
	how   string // what moves each byte, at the sender and at the receiver
	// can says whether this machine could, before anything is set up; nil: yes.
	can func() error
	// atClient: can is about the client's machine only.
	atClient bool
	serve    func(context.Context, *env) (part, error)
	fetch    func(context.Context, *env) (part, error)
}

// env is what one end of a run has to work with.
type env struct {
	job  Job
	conn *stream // of this run
	m    *meter

	src *source   // server
	rec *recorder // client

	device string      // name of the RDMA device, "" for the default
	fail   func(error) // ends the run, from any goroutine
}

// part is one end of a way that is set up. run moves the data: the client's
// until every block has been verified, the server's until its context ends or the
// client leaves. close may be called while run has failed, never while it runs.
type part interface {
	run(ctx context.Context) error
	close() error
}

// ways are all of them, in the order in which they are shown.
func ways() []way {
	return append(append([]way{readWrite}, kernelWays()...), rdmaWrite, rdmaRead, rpcWay, dpuWay)
}

// Way describes a way for those who choose.
type Way struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	How   string `json:"how"`
	// Cannot says why this machine cannot; empty: it might.
	Cannot string `json:"cannot,omitempty"`
}

// Ways lists the ways, with what this machine lacks.
func Ways() []Way {
	var out []Way
	for _, w := range ways() {
		d := Way{Name: w.name, Title: w.title, How: w.how}
		if w.can != nil {
			if err := w.can(); err != nil {
				d.Cannot = err.Error()
			}
		}
		out = append(out, d)
	}
	return out
}

func findWay(name string) (way, bool) {
	for _, w := range ways() {
		if w.name == name {
			return w, true
		}
	}
	return way{}, false
}

// CheckWays says whether all of names are ways.
func CheckWays(names []string) error {
	for _, n := range names {
		if _, ok := findWay(n); !ok {
			var have []string
			for _, w := range ways() {
				have = append(have, w.name)
			}
			return fmt.Errorf("no way %q; there are %s", n, strings.Join(have, ", "))
		}
	}
	return nil
}
