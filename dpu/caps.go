package dpu

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/zrdma/zrdma/verbs"
)

// Answer is what probing a capability found.
type Answer string

// Answers. Undecided is no half yes: the device was asked, and what it said does
// not settle it.
const (
	Yes       Answer = "yes"
	No        Answer = "no"
	Undecided Answer = "unknown"
)

// Capability is one answer with what was tried.
type Capability struct {
	Answer Answer `json:"answer"`
	How    string `json:"how"`
}

// Capabilities are those of one RDMA device, found by asking it.
type Capabilities struct {
	Window1         Capability `json:"mw_type_1"`
	Window2B        Capability `json:"mw_type_2b"`
	ODP             Capability `json:"odp"`
	DMABuf          Capability `json:"dma_buf"`
	DeviceMemory    Capability `json:"device_memory"`
	Atomics         Capability `json:"atomics"`
	RelaxedOrdering Capability `json:"relaxed_ordering"`
	AtomicWrite     Capability `json:"atomic_write"`
	Flush           Capability `json:"flush"`
	XRC             Capability `json:"xrc"`
	TagMatching     Capability `json:"tag_matching"`
	Timestamps      Capability `json:"timestamps"`
	CrossGVMI       Capability `json:"cross_gvmi"`
}

// NamedCapability is a capability with the name it has in JSON.
type NamedCapability struct {
	Name string
	Capability
}

// List gives the capabilities in a fixed order.
func (c *Capabilities) List() []NamedCapability {
	return []NamedCapability{
		{"mw_type_1", c.Window1}, {"mw_type_2b", c.Window2B}, {"odp", c.ODP}, {"dma_buf", c.DMABuf},
		{"device_memory", c.DeviceMemory}, {"atomics", c.Atomics}, {"relaxed_ordering", c.RelaxedOrdering},
		{"atomic_write", c.AtomicWrite}, {"flush", c.Flush}, {"xrc", c.XRC}, {"tag_matching", c.TagMatching},
		{"timestamps", c.Timestamps}, {"cross_gvmi", c.CrossGVMI},
	}
}

// ProbeDevice opens the RDMA device of that name, also soft:ADDR, and probes it.
func ProbeDevice(ctx context.Context, name string) (_ *Capabilities, err error) {
	c, err := verbs.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return Probe(ctx, c)
}

// Probe finds what an open device can do by making the objects concerned. It sends
// nothing. The library counts too: what the verbs library of this machine lacks
// is a no that says so.
func Probe(ctx context.Context, c *verbs.Context) (_ *Capabilities, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := prober{c: c, mem: make([]byte, os.Getpagesize())}
	if p.attr, err = c.QueryDeviceEx(); err != nil {
		return nil, fmt.Errorf("dpu: probing %s: %w", c.Name(), err)
	}
	if p.pd, err = c.AllocPD(); err != nil {
		return nil, fmt.Errorf("dpu: probing %s: %w", c.Name(), err)
	}
	defer func() { err = errors.Join(err, p.pd.Close()) }()
	out := &Capabilities{}
	for _, step := range []struct {
		to *Capability
		f  func() Capability
	}{
		{&out.Window1, p.window1}, {&out.Window2B, p.window2B}, {&out.ODP, p.odp}, {&out.DMABuf, p.dmaBuf},
		{&out.DeviceMemory, p.deviceMemory}, {&out.Atomics, p.atomics}, {&out.RelaxedOrdering, p.relaxedOrdering},
		{&out.AtomicWrite, p.atomicWrite}, {&out.Flush, p.flush}, {&out.XRC, p.xrc}, {&out.TagMatching, p.tagMatching},
		{&out.Timestamps, p.timestamps}, {&out.CrossGVMI, p.crossGVMI},
	} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		*step.to = step.f()
	}
	return out, nil
}
