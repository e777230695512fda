package mr

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/zrdma/zrdma/verbs"
)

// DefaultAccess is the access of a region whose Config names none: the device
// may write, windows may be bound, and no peer has any right by the region's own
// key. On a device without windows AccessMWBind is left out.
const DefaultAccess = verbs.AccessLocalWrite | verbs.AccessMWBind

// Config says how a region is made. The zero value is fit for most.
type Config struct {
	Access verbs.AccessFlags // 0: DefaultAccess; for read-only memory without AccessLocalWrite
	Huge   HugePages         // HugeAuto: huge pages when they can be had
	Node   Node              // AnyNode: where the kernel puts it
}

// Region is memory that is registered in one or more protection domains, with a
// key for each. Its memory is reached through Bufs only: those of a pool, or
// those that Region.Buf hands out.
type Region struct {
	mem      []byte // nil for a dma-buf
	size     uint64
	access   verbs.AccessFlags
	readOnly bool
	backing  Backing
	reg      func(*Region, *verbs.PD, verbs.AccessFlags) (*verbs.MR, error)
	unmap    func() error              // nil: the memory is the caller's
	flush    func(off, n uint64) error // writes back to a file; nil: there is none

	keys  atomic.Pointer[[]key]
	mu    sync.Mutex // guards growth of keys, closed and held
	state regionState
	acct  account
	held  []*slot // sorted by offset; see Buf
	spare []*slot
	live  int // slots out, those of a pool not counted
}

type regionState uint8

const (
	regionOpen regionState = iota
	regionClosing
	regionClosed
)

// key is a registration. base is the address of the region's first byte.
type key struct {
	pd     *verbs.PD
	mr     *verbs.MR
	lkey   verbs.LKey
	base   uint64
	access verbs.AccessFlags
}

func (r *Region) key(d *verbs.PD) *key {
	ks := *r.keys.Load()
	for i := range ks {
		if ks[i].pd == d {
			return &ks[i]
		}
	}
	return nil
}

// Alloc maps size bytes of anonymous memory, zeroed, and registers them in each
// of domains. size is rounded up to whole pages. Without huge pages it falls
// back to ordinary ones and says so once, by slog.
func Alloc(size int, cfg Config, domains ...*verbs.PD) (*Region, error) {
	if size <= 0 {
		return nil, fmt.Errorf("mr: a region of %d bytes: %w", size, syscall.EINVAL)
	}
	m, err := mapAnon(size, cfg.Huge, cfg.Node.resolve(domains))
	if err != nil {
		return nil, err
	}
	r := &Region{mem: m.mem, size: uint64(len(m.mem)), backing: m.backing, unmap: m.unmap}
	return r.register(cfg.Access, domains)
}

// Register registers memory that the caller owns, a Go slice on the heap or a
// mapping, in each of domains. The region pins it and keeps a Go slice reachable
// until Close. The caller no longer touches it except through Bufs, and does not
// unmap it before Close.
func Register(b []byte, access verbs.AccessFlags, domains ...*verbs.PD) (*Region, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("mr: registering an empty slice: %w", syscall.EINVAL)
	}
	r := &Region{mem: b, size: uint64(len(b)), backing: CallerMemory}
	return r.register(access, domains)
}

// RegisterDmabuf registers length bytes at offset of a dma-buf, for instance of
// a GPU. fd stays the caller's; the kernel keeps the buffer until Close. Bytes
// of its Bufs are nil. errors.ErrUnsupported where a device cannot.
func RegisterDmabuf(fd int, offset, length uint64, access verbs.AccessFlags, domains ...*verbs.PD) (*Region, error) {
	if fd < 0 || length == 0 {
		return nil, fmt.Errorf("mr: dma-buf %d, %d bytes: %w", fd, length, syscall.EINVAL)
	}
	if access == 0 {
		access = verbs.AccessLocalWrite
	}
	r := &Region{size: length, backing: Dmabuf}
	r.reg = func(_ *Region, d *verbs.PD, a verbs.AccessFlags) (*verbs.MR, error) {
		return d.RegDmabufMR(fd, offset, length, offset, a)
	}
	return r.register(access, domains)
}

// register makes r whole, or frees its memory.
func (r *Region) register(access verbs.AccessFlags, domains []*verbs.PD) (*Region, error) {
	if r.reg == nil {
		r.reg = func(r *Region, d *verbs.PD, a verbs.AccessFlags) (*verbs.MR, error) { return d.RegMR(r.mem, a) }
	}
	r.access = access
	r.keys.Store(&[]key{})
	for _, d := range domains {
		if err := r.AddDomain(d); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

// AddDomain registers the region in one more protection domain, for instance of
// another rail. A domain that it is registered in already is no error.
func (r *Region) AddDomain(d *verbs.PD) error {
	if d == nil {
		return fmt.Errorf("mr: a nil protection domain: %w", syscall.EINVAL)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != regionOpen {
		return ErrClosed
	}
	if r.key(d) != nil {
		return nil
	}
	access := r.access
	if access == 0 {
		access = DefaultAccess
		if r.readOnly {
			access &^= verbs.AccessLocalWrite
		}
	}
	m, err := r.reg(r, d, access)
	// A device without windows, or memory that is mapped read-only: Linux takes
	// AccessMWBind for a wish to write, EFAULT.
	if err != nil && r.access == 0 && !errors.Is(err, syscall.ENOMEM) {
		access &^= verbs.AccessMWBind
		m, err = r.reg(r, d, access)
	}
	if err != nil {
		return explain(err, r.size, r.access)
	}
	k := key{pd: d, mr: m, lkey: m.LKey(), base: m.Addr(), access: access}
	ks := append(slices.Clone(*r.keys.Load()), k)
	r.keys.Store(&ks)
	return nil
}

// Len is the length in bytes.
func (r *Region) Len() uint64 { return r.size }

// Backing says what memory it is.
func (r *Region) Backing() Backing { return r.backing }

// ReadOnly reports a region that the device may not write: a read-only file mapping.
func (r *Region) ReadOnly() bool { return r.readOnly }

// Domains are the protection domains it is registered in.
func (r *Region) Domains() []*verbs.PD {
	var out []*verbs.PD
	for _, k := range *r.keys.Load() {
		out = append(out, k.pd)
	}
	return out
}

// MR is the registration in d, nil when there is none. Its keys open the whole
// region: do not show them to a peer; Grant does that for one range.
func (r *Region) MR(d *verbs.PD) *verbs.MR {
	if k := r.key(d); k != nil {
		return k.mr
	}
	return nil
}

// Close deregisters the region and unmaps what Alloc and MapFile mapped. ErrInUse
// while a Buf of it is held or in flight; EINVAL from the device while a window
// is bound to it. When it fails nothing is unmapped, and it may be tried again.
func (r *Region) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == regionClosed {
		return nil
	}
	if r.live > 0 {
		return fmt.Errorf("mr: %w: %d buffer(s) of the region are held or in flight%s", ErrInUse, r.live, r.whoHolds())
	}
	r.state = regionClosing
	ks := *r.keys.Load()
	for len(ks) > 0 {
		if err := ks[len(ks)-1].mr.Close(); err != nil {
			return err
		}
		ks = slices.Clone(ks[:len(ks)-1])
		r.keys.Store(&ks)
	}
	if r.unmap != nil {
		if err := r.unmap(); err != nil {
			return err
		}
	}
	r.mem, r.state = nil, regionClosed
	return nil
}
