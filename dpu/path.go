package dpu

import (
	"context"
	"fmt"
)

// Path is the way that an operation takes.
type Path uint8

// Values of Path.
const (
	Auto      Path = iota // the policy decides
	Direct                // the host talks to the server
	Staged                // the agent does it, through its own memory, in chunks
	CrossGVMI             // the agent lets the server's data go straight to the host's memory. Not verified on hardware; see the build tag crossgvmi
)

var pathNames = [...]string{"auto", "direct", "staged", "cross-gvmi"}

// String is the name of the path.
func (p Path) String() string {
	if int(p) < len(pathNames) {
		return pathNames[p]
	}
	return fmt.Sprintf("Path(%d)", uint8(p))
}

// ParsePath is the Path of a name.
func ParsePath(s string) (Path, error) {
	for i, n := range pathNames {
		if s == n {
			return Path(i), nil
		}
	}
	return 0, fmt.Errorf("dpu: no path is called %q: auto, direct, staged or cross-gvmi", s)
}

type pathKey struct{}

// WithPath chooses the path of the calls that are given the context: Direct, or
// Staged, which is ErrNoAgent when there is none that is well. An agent that is lost
// during a call leads to the fall-back in any case.
func WithPath(ctx context.Context, p Path) context.Context {
	return context.WithValue(ctx, pathKey{}, p)
}

func pathOf(ctx context.Context) Path {
	p, _ := ctx.Value(pathKey{}).(Path)
	return p
}
