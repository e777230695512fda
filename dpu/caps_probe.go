package dpu

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"syscall"

	"github.com/zrdma/zrdma/verbs"
)

type prober struct {
	c    *verbs.Context
	attr verbs.DeviceAttrEx
	pd   *verbs.PD
	mem  []byte
}

type closer interface{ Close() error }

// tried makes an object and closes it. An error other than "cannot" decides
// nothing: the memory limit or a missing right would say no as well.
func tried(what string, o closer, err error) Capability {
	if err == nil {
		err = o.Close()
	}
	switch {
	case err == nil:
		return Capability{Yes, what + " works"}
	case errors.Is(err, errors.ErrUnsupported):
		return Capability{No, err.Error()}
	}
	return Capability{Undecided, err.Error()}
}

// and lets an attribute that says no overrule an object that could be made: some
// drivers make objects of kinds they do not carry out.
func (a Capability) and(reported bool, attribute string) Capability {
	switch {
	case a.Answer == Yes && reported:
		return Capability{Yes, a.How + ", and the device reports " + attribute}
	case a.Answer != No && !reported:
		return Capability{No, "the device does not report " + attribute}
	}
	return a
}

func (p *prober) window1() Capability {
	w, err := p.pd.AllocMW(verbs.MWType1)
	return tried("ibv_alloc_mw(type 1)", w, err).and(p.attr.Orig.DeviceCapFlags&verbs.DeviceMemWindow != 0, "DEVICE_MEM_WINDOW")
}

func (p *prober) window2B() Capability {
	w, err := p.pd.AllocMW(verbs.MWType2)
	return tried("ibv_alloc_mw(type 2)", w, err).and(p.attr.Orig.DeviceCapFlags&verbs.DeviceMemWindowType2B != 0, "DEVICE_MEM_WINDOW_TYPE_2B")
}

func (p *prober) odp() Capability {
	reported := p.attr.ODP.General&verbs.ODPSupport != 0
	if !reported {
		return Capability{No, "the device does not report ODP_SUPPORT"}
	}
	mr, err := p.pd.RegMR(p.mem, verbs.AccessLocalWrite|verbs.AccessOnDemand)
	return tried("a region with ACCESS_ON_DEMAND", mr, err)
}

// noSuchFile is a descriptor that is never open: beyond any limit.
const noSuchFile = math.MaxInt32

func (p *prober) dmaBuf() Capability {
	mr, err := p.pd.RegDmabufMR(noSuchFile, 0, uint64(len(p.mem)), 0, verbs.AccessLocalWrite)
	switch {
	case errors.Is(err, syscall.EBADF):
		return Capability{Yes, "ibv_reg_dmabuf_mr looked for the file that it was given"}
	case errors.Is(err, syscall.EINVAL):
		return Capability{Undecided, err.Error()}
	}
	return tried("ibv_reg_dmabuf_mr", mr, err)
}

func (p *prober) deviceMemory() Capability {
	if p.attr.MaxDMSize == 0 {
		return Capability{No, "the device reports MaxDMSize 0"}
	}
	dm, err := p.c.AllocDM(min(64, p.attr.MaxDMSize), 0)
	return tried("ibv_alloc_dm", dm, err)
}

func (p *prober) atomics() Capability {
	mr, err := p.pd.RegMR(p.mem, verbs.AccessLocalWrite|verbs.AccessRemoteAtomic)
	return tried("a region with ACCESS_REMOTE_ATOMIC", mr, err).and(p.attr.Orig.AtomicCap != verbs.AtomicNone, "atomics")
}

// relaxedOrdering never becomes yes: the flag is optional, so a device may take
// and ignore it, and verbs has no way to ask.
func (p *prober) relaxedOrdering() Capability {
	mr, err := p.pd.RegMR(p.mem, verbs.AccessLocalWrite|verbs.AccessRelaxedOrdering)
	a := tried("a region with ACCESS_RELAXED_ORDERING", mr, err)
	if a.Answer == Yes {
		return Capability{Undecided, "the flag is accepted, and a device may ignore it"}
	}
	return a
}

// Bits of DeviceCapFlagsEx that the kernel reports; libibverbs 44 passes them on
// without naming them.
const (
	capFlushGlobal = 1 << 38
	capAtomicWrite = 1 << 40
)

func (p *prober) sendOp(op verbs.SendOpsFlags, name string, flag uint64) Capability {
	cq, err := p.c.CreateCQ(4, nil)
	if err != nil {
		return Capability{Undecided, err.Error()}
	}
	qp, err := p.pd.CreateQP(verbs.QPConfig{
		SendCQ: cq, SendOps: op,
		Cap: verbs.QPCap{MaxSendWR: 2, MaxRecvWR: 2, MaxSendSGE: 1, MaxRecvSGE: 1},
	})
	a := tried("a queue pair with "+name, qp, err)
	if err := cq.Close(); err != nil {
		return Capability{Undecided, err.Error()}
	}
	return a.and(p.attr.DeviceCapFlagsEx&flag != 0, name)
}

func (p *prober) atomicWrite() Capability {
	return p.sendOp(verbs.QPExWithAtomicWrite, "ATOMIC_WRITE", capAtomicWrite)
}

func (p *prober) flush() Capability {
	return p.sendOp(verbs.QPExWithFlush, "FLUSH_GLOBAL", capFlushGlobal)
}

func (p *prober) xrc() Capability {
	x, err := p.c.OpenXRCD(nil, os.O_CREATE)
	return tried("ibv_open_xrcd", x, err).and(p.attr.Orig.DeviceCapFlags&verbs.DeviceXRC != 0, "DEVICE_XRC")
}

func (p *prober) tagMatching() Capability {
	if p.attr.TM.MaxNumTags == 0 {
		return Capability{No, "the device reports a tag list of 0"}
	}
	cq, err := p.c.CreateCQ(8, nil)
	if err != nil {
		return Capability{Undecided, err.Error()}
	}
	s, err := p.pd.CreateSRQ(verbs.SRQConfig{Type: verbs.SRQTTM, CQ: cq, MaxNumTags: 1, MaxOps: 1, Attr: verbs.SRQAttr{MaxWR: 2}})
	a := tried("a shared receive queue of type TM", s, err)
	if err := cq.Close(); err != nil {
		return Capability{Undecided, err.Error()}
	}
	return a
}

func (p *prober) timestamps() Capability {
	cq, err := p.c.CreateCQ(4, &verbs.CQConfig{Extended: true, WCFlags: verbs.WCExWithCompletionTimestamp})
	return tried("a completion queue with timestamps", cq, err).and(p.attr.CompletionTimestampMask != 0, "a timestamp mask")
}

// crossGVMI is between two functions of one card, so a device on no bus has it
// not. For the others verbs cannot tell: it takes mlx5's DEVX commands.
func (p *prober) crossGVMI() Capability {
	if p.c.IsSoft() {
		return Capability{No, "the device is in this process, not on a card"}
	}
	dir := p.c.SysfsPath()
	if dir == "" {
		return Capability{Undecided, "the device has no folder in sysfs"}
	}
	if _, err := os.Stat(filepath.Join(dir, "device")); errors.Is(err, os.ErrNotExist) {
		return Capability{No, fmt.Sprintf("%s is on no card", p.c.Name())}
	}
	return Capability{Undecided, "needs DEVX commands of mlx5 that are not part of verbs"}
}
