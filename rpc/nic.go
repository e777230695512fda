package rpc

import (
	"errors"
	"fmt"
	"sync"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// maxRails bounds the devices of one side.
const maxRails = 8

// nic is a device of this host, as a client or a server uses it.
type nic struct {
	d       *qp.Device
	granter *mr.Granter
	shared  *qp.SharedReceive // of a server; nil: each connection has its own
	budget  *nicBudget
}

// openNICs takes the devices of cfg into use, Config.Device first.
func openNICs(cfg *Config, receives int) (l []*nic, err error) {
	defer func() {
		if err != nil {
			_ = closeNICs(l)
		}
	}()
	d := cfg.Device
	if d == nil {
		if d, err = defaultDevice(); err != nil {
			return nil, err
		}
	}
	for _, d := range append([]*qp.Device{d}, cfg.Rails...) {
		n := &nic{d: d, budget: budgetOf(d)}
		l = append(l, n)
		if cfg.DeviceReads > 0 {
			n.budget.reads.resize(cfg.DeviceReads)
		}
		if cfg.DevicePushes > 0 {
			n.budget.pushes.resize(cfg.DevicePushes)
		}
		if n.granter, err = mr.NewGranter(d.PD(), mr.GranterConfig{Grace: fenceGrace(cfg.DeadAfter)}); err != nil {
			return l, err
		}
		if receives > 0 {
			if n.shared, err = d.NewSharedReceive(qp.SharedReceiveConfig{Depth: receives, MaxMessage: cfg.SlotSize}); err != nil {
				return l, err
			}
		}
	}
	return l, nil
}

// closeNICs frees what openNICs made; nothing of it is in use any more.
func closeNICs(l []*nic) error {
	var errs []error
	for _, n := range l {
		if n.shared != nil {
			errs = append(errs, n.shared.Close())
		}
		if n.granter != nil {
			errs = append(errs, closeGranter(n.granter))
		}
		n.budget.leave()
	}
	return errors.Join(errs...)
}

// reach registers the memory of b with the device, unless it is already: the first
// device's has to be, by its owner; the others' is this package's business.
func (n *nic) reach(b mr.Buf) error {
	r := b.Region()
	if r == nil || r.MR(n.d.PD()) != nil {
		return nil
	}
	if err := r.AddDomain(n.d.PD()); err != nil {
		return fmt.Errorf("rpc: registering memory with %s: %w", n.d.Context().Name(), err)
	}
	return nil
}

// nicBudget is what all clients and servers of this process may ask of a device at
// a time.
type nicBudget struct {
	d      *qp.Device
	users  int    // guarded by nicBudgets
	reads  tokens // READs outstanding
	pushes tokens // calls that wait for large results to be pushed
}

var nicBudgets = struct {
	sync.Mutex
	of map[*qp.Device]*nicBudget
}{of: map[*qp.Device]*nicBudget{}}

const (
	defaultReads  = 32
	defaultPushes = 64
	largePush     = 64 << 10 // a result of so many bytes takes a token
)

// budgetOf takes the budget of a device into use.
func budgetOf(d *qp.Device) *nicBudget {
	nicBudgets.Lock()
	defer nicBudgets.Unlock()
	x := nicBudgets.of[d]
	if x == nil {
		x = &nicBudget{d: d}
		x.reads.resize(defaultReads)
		x.pushes.resize(defaultPushes)
		nicBudgets.of[d] = x
	}
	x.users++
	return x
}

// leave ends one use; the last forgets the device.
func (x *nicBudget) leave() {
	nicBudgets.Lock()
	defer nicBudgets.Unlock()
	if x.users--; x.users == 0 {
		delete(nicBudgets.of, x.d)
	}
}
