package compare

import (
	"context"
	"errors"
	"os"
)

// EnvAgent names the offload agent of this host's DPU, host:port.
const EnvAgent = "ZRDMA_DPU_AGENT"

// agent is what the DPU path needs of an offload agent: it sends blocks of a file
// for the host, whose processors do not touch them.
type agent interface {
	serve(context.Context, *env) (part, error)
	fetch(context.Context, *env) (part, error)
}

// dialAgent finds the agent that is configured. Nothing of this module speaks to
// one yet.
var dialAgent = func() (agent, error) {
	if os.Getenv(EnvAgent) == "" {
		return nil, errors.New("no agent configured: $" + EnvAgent + " names none")
	}
	return nil, errors.New("this program cannot speak to an agent yet")
}

var dpuWay = way{
	name: "dpu", title: "DPU, through its agent",
	how: "an agent on the sender's DPU moves the blocks",
	can: func() error { _, err := dialAgent(); return err },
	serve: func(ctx context.Context, e *env) (part, error) {
		a, err := dialAgent()
		if err != nil {
			return nil, err
		}
		return a.serve(ctx, e)
	},
	fetch: func(ctx context.Context, e *env) (part, error) {
		a, err := dialAgent()
		if err != nil {
			return nil, err
		}
		return a.fetch(ctx, e)
	},
}
