package verbs

import "github.com/zrdma/zrdma/internal/handle"

// RWQIndTable spreads received packets over work queues.
type RWQIndTable struct {
	h handle.Handle
	p any
}
