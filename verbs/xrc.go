package verbs

import "github.com/zrdma/zrdma/internal/handle"

// XRCD is an extended connection domain.
type XRCD struct {
	h handle.Handle
	p any
}
