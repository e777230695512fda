package mr

import (
	"container/list"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"github.com/zrdma/zrdma/verbs"
)

// CacheConfig describes a Cache. The zero value is fit for most.
type CacheConfig struct {
	Limit   int64             // bytes pinned at most, in whole pages; 0: 256 MiB
	Entries int               // registrations at most; 0: 1024
	Access  verbs.AccessFlags // 0: DefaultAccess
}

func (cfg CacheConfig) withDefaults() (CacheConfig, error) {
	if cfg.Limit < 0 || cfg.Entries < 0 {
		return cfg, fmt.Errorf("mr: CacheConfig: Limit and Entries must not be negative: %w", syscall.EINVAL)
	}
	if cfg.Limit == 0 {
		cfg.Limit = defaultLimit
	}
	if cfg.Entries == 0 {
		cfg.Entries = 1024
	}
	return cfg, nil
}

// Cache registers memory that the caller insists on using, and keeps the
// registrations for the next time. A pool is cheaper and safer where there is a
// choice.
//
// A registration holds the pages that were behind a range when it was made. If
// the range is unmapped and mapped again meanwhile, the device would go on using
// the old pages. So:
//
//   - a Go slice cannot go away: an entry pins it and keeps it reachable. The
//     price is that a cached slice is not collected until its entry is evicted;
//   - of mapped memory the caller says so: Invalidate before munmap, mremap,
//     MADV_DONTNEED or truncating the file;
//   - in case that was forgotten every hit asks the kernel whether this is still
//     the mapping that was registered: an entry locks its range (mlock), which
//     unmapping undoes, and a hit looks at the lock. It looks at every page of a
//     range of up to 16, else at 16 pages with the first and the last among them:
//     only a remapping of pages between those stays unseen;
//   - where that lock cannot tell (no mlock; the process locks all its memory;
//     reserved huge pages) nothing is kept: the registration ends with its use.
type Cache struct {
	cfg     CacheConfig
	domains []*verbs.PD
	acct    account

	mu           sync.Mutex
	idle         sync.Cond // of mu: an entry has gone, or is registered
	entries      []*entry  // guarded by mu, as all below; sorted by address
	lru          list.List // of the entries that may be evicted, oldest first
	pinned       int64
	leaving      int // being deregistered
	leavingBytes int64
	failed       []*Region
	held         []span
	closed       bool
	stats        CacheStats
}

// span is the addresses [lo, hi).
type span struct{ lo, hi uintptr }

func (a span) overlaps(b span) bool { return a.lo < b.hi && b.lo < a.hi }
func (a span) contains(b span) bool { return a.lo <= b.lo && b.hi <= a.hi }

func spanOf(b []byte) span {
	lo := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return span{lo, lo + uintptr(len(b))}
}

// pages widens a span to whole pages.
func (a span) pages() span {
	m := uintptr(pageSize - 1)
	return span{a.lo &^ m, (a.hi + m) &^ m}
}

// entry is one registration.
type entry struct {
	c     *Cache
	at    span
	reg   *Region
	users int           // guarded by c.mu, as all below: Bufs that are out
	ready bool          // registered; until then nobody but its maker touches it
	stale bool          // not to be found any more: goes with its last user
	kept  bool          // marked: see mark
	elem  *list.Element // in c.lru, when users is 0
	spare []*slot
}

// NewCache makes a cache that registers in each of domains.
func NewCache(cfg CacheConfig, domains ...*verbs.PD) (*Cache, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if len(domains) == 0 {
		return nil, fmt.Errorf("mr: a cache needs a protection domain: %w", syscall.EINVAL)
	}
	c := &Cache{cfg: cfg, domains: domains}
	c.idle.L = &c.mu
	return c, nil
}

// Buf registers b, or finds the registration of a range around it, and hands out
// the right to b: until it is released the caller touches b only through it.
// ErrInUse when bytes of b are out already; share them with Buf.Slice.
// ErrExhausted when what is in use leaves no room within the limit.
func (c *Cache) Buf(b []byte) (Buf, error) {
	n, err := clip(len(b))
	if err != nil {
		return Buf{}, err
	}
	if n == 0 {
		return Buf{}, fmt.Errorf("mr: a buffer of no bytes: %w", syscall.EINVAL)
	}
	at := spanOf(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return Buf{}, ErrClosed
	}
	if err := c.hold(at); err != nil {
		return Buf{}, err
	}
	e := c.find(at)
	if e != nil {
		c.stats.Hits++
	} else if e, err = c.register(b, at); err != nil {
		c.unhold(at)
		return Buf{}, err
	}
	e.use()
	return e.slot(at, n).handOut(n), nil
}

// hold notes that at is out. mu is held.
func (c *Cache) hold(at span) error {
	i, _ := slices.BinarySearchFunc(c.held, at, func(a, b span) int {
		if a.lo < b.lo {
			return -1
		}
		return 1
	})
	if i > 0 && c.held[i-1].overlaps(at) || i < len(c.held) && c.held[i].overlaps(at) {
		return fmt.Errorf("mr: %w: bytes of this slice are out already; share them with Buf.Slice", ErrInUse)
	}
	c.held = slices.Insert(c.held, i, at)
	return nil
}

func (c *Cache) unhold(at span) {
	if i := slices.Index(c.held, at); i >= 0 {
		c.held = slices.Delete(c.held, i, i+1)
	}
}

// find looks for a registration around at that still holds. mu is held.
func (c *Cache) find(at span) *entry {
	var lost []*entry
	var hit *entry
	for _, e := range c.entries {
		if e.at.lo > at.lo {
			break
		}
		if !e.ready || e.stale || !e.at.contains(at) {
			continue
		}
		if isMarked(e.at) {
			hit = e
			break
		}
		lost = append(lost, e)
	}
	for _, e := range lost {
		c.stats.Remapped++
		c.expire(e)
	}
	return hit
}

// use takes e out of the reach of eviction. mu is held.
func (e *entry) use() {
	e.users++
	if e.elem != nil {
		e.c.lru.Remove(e.elem)
		e.elem = nil
	}
}

// register makes an entry for b, which is held. mu is held, and given up while
// the kernel works.
func (c *Cache) register(b []byte, at span) (*entry, error) {
	c.stats.Misses++
	size := int64(at.pages().hi - at.pages().lo)
	if size > c.cfg.Limit {
		return nil, fmt.Errorf("mr: %d bytes are more than the cache may pin, %d: raise CacheConfig.Limit: %w", size, c.cfg.Limit, syscall.EMSGSIZE)
	}
	// An idle entry that overlaps only wastes pages.
	for _, e := range slices.Clone(c.entries) {
		if e.elem != nil && e.at.overlaps(at) {
			c.expire(e)
		}
	}
	if err := c.makeRoom(size); err != nil {
		return nil, err
	}
	e := &entry{c: c, at: at, users: 1} // a user, so that nobody evicts it
	i, _ := slices.BinarySearchFunc(c.entries, at.lo, func(e *entry, lo uintptr) int {
		if e.at.lo < lo {
			return -1
		}
		return 1
	})
	c.entries = slices.Insert(c.entries, i, e)
	c.pinned += size
	// Marked first: a mapping that changes between the two is found unmarked.
	e.kept = c.mark(e)
	c.mu.Unlock()
	r, err := Register(b, c.cfg.Access, c.domains...)
	c.mu.Lock()
	e.users--
	e.ready = true
	c.idle.Broadcast()
	if err != nil {
		c.remove(e)
		c.unmark(e)
		c.pinned -= size
		return nil, err
	}
	e.reg = r
	e.stale = e.stale || !e.kept // c.closed cannot be: b is held
	return e, nil
}

// makeRoom evicts until size bytes fit, and waits until they have gone. mu is held.
func (c *Cache) makeRoom(size int64) error {
	for c.pinned+size > c.cfg.Limit || len(c.entries)+c.leaving >= c.cfg.Entries {
		tooMany := c.pinned-c.leavingBytes+size > c.cfg.Limit || len(c.entries) >= c.cfg.Entries
		old := c.lru.Front()
		switch {
		case tooMany && old != nil:
			c.stats.Evicted++
			c.expire(old.Value.(*entry))
		case c.leaving > 0:
			c.idle.Wait()
		default:
			return fmt.Errorf("mr: %w: %d bytes in %d registrations are in use and the limits are %d and %d", ErrExhausted, c.pinned, len(c.entries), c.cfg.Limit, c.cfg.Entries)
		}
	}
	return nil
}

// slot makes the slot for the bytes at of e. mu is held.
func (e *entry) slot(at span, n uint32) *slot {
	off := uint64(at.lo - e.at.lo)
	if k := len(e.spare); k > 0 {
		s := e.spare[k-1]
		e.spare = e.spare[:k-1]
		s.place(off, n)
		return s
	}
	s := &slot{}
	s.init(e, &e.c.acct, e.reg, off, n)
	return s
}

// put takes a slot back: e is its owner.
func (e *entry) put(s *slot) {
	c := e.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unhold(span{e.at.lo + uintptr(s.off), e.at.lo + uintptr(s.off) + uintptr(s.size)})
	e.spare = append(e.spare, s)
	e.users--
	if e.users > 0 {
		return
	}
	if e.stale {
		c.drop(e)
		return
	}
	e.elem = c.lru.PushBack(e)
}

// expire keeps e from being found; it goes now, or with its last user. mu is held.
func (c *Cache) expire(e *entry) {
	e.stale = true
	if e.users == 0 && e.ready {
		c.drop(e)
	}
}

// drop deregisters an entry that nobody uses, on a goroutine, for the kernel may
// take its time. mu is held.
func (c *Cache) drop(e *entry) {
	c.remove(e)
	c.unmark(e)
	p := e.at.pages()
	size := int64(p.hi - p.lo)
	c.leaving++
	c.leavingBytes += size
	go func() {
		err := e.reg.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.leaving--
		c.leavingBytes -= size
		if err != nil {
			c.stats.Failed++
			c.stats.LastError = err
			c.failed = append(c.failed, e.reg)
		} else {
			c.pinned -= size
		}
		c.idle.Broadcast()
	}()
}

// remove takes e off the lists. mu is held.
func (c *Cache) remove(e *entry) {
	if e.elem != nil {
		c.lru.Remove(e.elem)
		e.elem = nil
	}
	if i := slices.Index(c.entries, e); i >= 0 {
		c.entries = slices.Delete(c.entries, i, i+1)
	}
}

// Invalidate ends the registrations that overlap b, and returns when they are
// gone: call it before the memory is unmapped or its pages are given up.
// ErrInUse while a Buf of them is held or in flight; then the memory must stay.
func (c *Cache) Invalidate(b []byte) error {
	at := spanOf(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, e := range slices.Clone(c.entries) {
		if !e.at.overlaps(at) {
			continue
		}
		if c.expire(e); e.users > 0 {
			errs = append(errs, fmt.Errorf("mr: %w: %d buffer(s) in these %d bytes are held or in flight", ErrInUse, e.users, e.at.hi-e.at.lo))
		}
	}
	failed := c.stats.Failed
	for c.leaving > 0 {
		c.idle.Wait()
	}
	if c.stats.Failed > failed {
		errs = append(errs, c.stats.LastError)
	}
	return errors.Join(errs...)
}

// CacheStats is a snapshot of a Cache.
type CacheStats struct {
	Entries   int
	Pinned    int64 // bytes, in whole pages
	InUse     int   // entries with a Buf out
	Hits      uint64
	Misses    uint64
	Evicted   uint64 // to make room
	Remapped  uint64 // hits on a range that had been mapped anew without Invalidate
	Failed    uint64 // registrations that could not be ended; their memory stays pinned
	LastError error  // of the last of them
	Misuse    uint64 // uses of a Buf that were refused
}

// Stats takes a snapshot.
func (c *Cache) Stats() CacheStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.stats
	st.Entries, st.Pinned, st.Misuse = len(c.entries), c.pinned, c.acct.misuse.Load()
	for _, e := range c.entries {
		if e.users > 0 {
			st.InUse++
		}
	}
	return st
}

// Close ends all registrations. ErrInUse while a Buf is held or in flight.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.held); n > 0 {
		return fmt.Errorf("mr: %w: %d buffer(s) of the cache are held or in flight", ErrInUse, n)
	}
	c.closed = true
	for _, e := range slices.Clone(c.entries) {
		c.expire(e)
	}
	for c.leaving > 0 {
		c.idle.Wait()
	}
	for len(c.failed) > 0 {
		if err := c.failed[0].Close(); err != nil {
			return err
		}
		c.failed = c.failed[1:]
	}
	return nil
}
