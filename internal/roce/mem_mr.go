package roce

import (
	"math"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
)

// pd is a protection domain. Its address handles are in ah.go.
type pd struct {
	n    *node
	c    *devCtx
	id   uint32
	refs int // regions, windows and shared receive queues; guarded by n.mu
}

// allocPD makes a protection domain.
func (n *node) allocPD(c *devCtx) (*pd, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.net != nil && n.net.Virtual() && n.mem.seed == 0 {
		n.mem.seed = uint64(n.guid()) // a test's run is the same each time
	}
	n.mem.init()
	n.mem.pds++
	return &pd{n: n, c: c, id: n.mem.pds}, nil
}

// Handle names the domain.
func (p *pd) Handle() uint64 { return p.handle() }

func (p *pd) handle() uint64 { return uint64(p.id) }

// Close frees the domain: EBUSY while something of it lives.
func (p *pd) Close() error {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	if p.refs > 0 {
		return syscall.EBUSY
	}
	return nil
}

const (
	remoteAccess = provider.AccessRemoteRead | provider.AccessRemoteWrite | provider.AccessRemoteAtomic
	// mrAccess is what a region can be registered with.
	mrAccess = provider.AccessLocalWrite | remoteAccess | provider.AccessMWBind
	// optionalAccess are bits that a device may ignore.
	optionalAccess provider.AccessFlags = 0x3ff << 20
)

// checkAccess refuses rights that contradict each other or that the device lacks.
func checkAccess(a provider.AccessFlags) error {
	if a&^(mrAccess|optionalAccess) != 0 {
		return syscall.EOPNOTSUPP
	}
	return needLocalWrite(a, a)
}

// needLocalWrite: who lets others write must be allowed to write.
func needLocalWrite(remote, local provider.AccessFlags) error {
	if remote&(provider.AccessRemoteWrite|provider.AccessRemoteAtomic) != 0 && local&provider.AccessLocalWrite == 0 {
		return syscall.EINVAL
	}
	return nil
}

// checkRange refuses memory that is empty, wraps around or is not there.
func checkRange(addr, length, va uint64, a provider.AccessFlags) error {
	if length == 0 || length > math.MaxInt64 || addr > math.MaxUint64-length || va > math.MaxUint64-length {
		return syscall.EINVAL
	}
	return checkMapped(addr, length, a&provider.AccessLocalWrite != 0)
}

// mr is a memory region. Its key is local and remote at once, as on rxe: what a
// peer may do is said by the rights.
type mr struct {
	p       *pd // guarded by n.mu after creation: Rereg
	n       *node
	slot    *memSlot
	key     uint32
	id      uint64
	windows int    // bound to it; guarded by n.mu
	mapped  []byte // of a dma-buf; unmapped with the region
}

var (
	_ provider.MR          = (*mr)(nil)
	_ provider.Reregistrar = (*mr)(nil)
)

// RegMR registers memory of this process: EFAULT when it is not mapped with the
// rights that access needs. Work requests address it from iova on when useIOVA,
// else by its own address.
//
// Verb: ibv_reg_mr(3), ibv_reg_mr_iova(3).
func (p *pd) RegMR(addr uint64, length uint64, iova uint64, useIOVA bool, access provider.AccessFlags) (provider.MR, error) {
	if err := checkAccess(access); err != nil {
		return nil, err
	}
	va := addr
	if useIOVA {
		va = iova
	}
	if err := checkRange(addr, length, va, access); err != nil {
		return nil, err
	}
	n := p.n
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.mem.alloc(regionSlot)
	if s == nil {
		return nil, syscall.ENOMEM
	}
	m := &mr{p: p, n: n, slot: s, key: s.key, id: s.handle()}
	s.mr, s.pd, s.access = m, p.id, access|slotMR
	s.va, s.length, s.mem = va, length, addr
	p.refs++
	return m, nil
}

// Handle names the region in work requests.
func (m *mr) Handle() uint64 { return m.id }

// LKey is the key.
func (m *mr) LKey() provider.LKey { return provider.LKey(m.key) }

// RKey is the same key.
func (m *mr) RKey() provider.RKey { return provider.RKey(m.key) }

// Close deregisters: EINVAL while a window is bound. After it the device touches
// the memory no more.
//
// Verb: ibv_dereg_mr(3).
func (m *mr) Close() error {
	m.n.mu.Lock()
	defer m.n.mu.Unlock()
	if m.windows > 0 {
		return syscall.EINVAL
	}
	m.p.refs--
	m.n.mem.release(m.slot, regionSlot)
	if m.mapped != nil {
		unmap(m.mapped)
		m.mapped = nil
	}
	return nil
}

// Rereg changes the region in place; the keys stay. A failure leaves it as it
// was. EBUSY while a window is bound.
//
// Verb: ibv_rereg_mr(3).
func (m *mr) Rereg(flags provider.ReregMRFlags, npd provider.PD, addr, length uint64, access provider.AccessFlags) (int, error) {
	const old = int(provider.ReregMRErrInput)
	translation := flags&provider.ReregMRChangeTranslation != 0
	m.n.mu.Lock()
	now := *m.slot
	m.n.mu.Unlock()
	a := now.access &^ slotMR
	if flags&provider.ReregMRChangeAccess != 0 {
		a = access
	}
	if err := checkAccess(a); err != nil {
		return old, err
	}
	if !translation {
		addr, length = now.mem, now.length
	}
	if err := checkRange(addr, length, addr, a); err != nil {
		return old, err
	}
	m.n.mu.Lock()
	defer m.n.mu.Unlock()
	if m.windows > 0 {
		return old, syscall.EBUSY
	}
	if flags&provider.ReregMRChangePd != 0 {
		p, ok := npd.(*pd)
		if !ok || p.n != m.n {
			return old, syscall.EINVAL
		}
		m.p.refs--
		p.refs++
		m.p, m.slot.pd = p, p.id
	}
	m.slot.access = a | slotMR
	if translation {
		m.slot.va, m.slot.mem, m.slot.length = addr, addr, length
	}
	return 0, nil
}
