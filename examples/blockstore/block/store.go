package block

import (
	"container/list"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/verbs"
)

// A block is a file: a header of one page, then the data, so that the data can be
// mapped. A block appears under its name only when all of it is on the disk;
// what a crash leaves behind has another suffix and is removed at the next start.
const (
	headerSize = 4096
	suffix     = ".block"
	unfinished = ".part"
	tokenAt    = 128 // in the header: writer and number of the write that made the block
)

// Limits of blocks, in bytes.
const (
	MaxBlock = 16 << 20
	MaxKey   = 100
)

var blockMagic = [8]byte{'z', 'r', 'b', 'l', 'o', 'c', 'k', 1}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// info describes a block.
type info struct {
	dpu.BlockInfo
	writer dpu.Writer // of the write that made it
	seq    uint64
}

// StoreConfig configures a Store. The zero value is good.
type StoreConfig struct {
	Cache  int64 // bytes of blocks that stay mapped; 0: 1 GiB
	NoSync bool  // files are not synced: for tests, a crash of the machine may lose blocks
	// OnWrite hears of every write with a token when it is made visible.
	OnWrite func(key string, t dpu.Token)
}

// Store is a directory of blocks. Data that is read stays mapped and registered
// while there is room, so that a second read costs no registration.
type Store struct {
	dir     string
	pd      *verbs.PD
	limit   int64
	sync    bool
	onWrite func(string, dpu.Token)
	ledger  *dpu.Ledger

	mu     sync.Mutex
	blocks map[string]info          // guarded by mu, as all below
	mapped map[string]*list.Element // of *mapping
	lru    *list.List               // the most recently used in front
	bytes  int64
	stale  []*mapping // of deleted or replaced blocks, still being read
	begun  map[string]*begun

	upMu    sync.Mutex
	uploads map[upload]*parts // guarded by upMu

	epoch  uint64 // of versions
	seq    atomic.Uint64
	staged atomic.Uint64 // bytes that the CPU copied, where a file cannot be written by the device
	direct atomic.Bool
}

// begun is the writes of a key that are under way. The order in which writes began
// is the one that counts: one whose caller has given up, or sent it again, must not
// come over a later one that was acknowledged.
type begun struct {
	n       int
	deleted uint64 // Version of the last delete meanwhile
}

type mapping struct {
	key string
	reg *mr.Region
	n   uint32
}

// Open reads the directory and makes it when it is not there. pd is of the server's
// device.
func Open(dir string, pd *verbs.PD, cfg StoreConfig) (*Store, error) {
	if cfg.Cache == 0 {
		cfg.Cache = 1 << 30
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s := &Store{dir: dir, pd: pd, limit: cfg.Cache, sync: !cfg.NoSync, onWrite: cfg.OnWrite, ledger: dpu.NewLedger(), uploads: map[upload]*parts{}, blocks: map[string]info{}, mapped: map[string]*list.Element{}, lru: list.New(), begun: map[string]*begun{}}
	s.epoch = s.ledger.Boot(dpu.Writer{}) << 24
	s.direct.Store(true)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case strings.HasSuffix(e.Name(), unfinished):
			if err := os.Remove(path); err != nil {
				return nil, err
			}
		case strings.HasSuffix(e.Name(), suffix):
			in, err := readHeader(path)
			if err != nil {
				slog.Warn("blockstore: a file that is no block is left alone", "file", path, "err", err)
				continue
			}
			in.Version = s.version()
			s.blocks[in.Key] = in
		}
	}
	return s, nil
}

func (s *Store) path(key string) string {
	return filepath.Join(s.dir, hex.EncodeToString([]byte(key))+suffix)
}

func readHeader(path string) (in info, err error) {
	f, err := os.Open(path)
	if err != nil {
		return in, err
	}
	defer f.Close()
	b := make([]byte, tokenAt+24)
	if _, err := f.ReadAt(b, 0); err != nil {
		return in, err
	}
	n := int(binary.LittleEndian.Uint16(b[16:]))
	if [8]byte(b[:8]) != blockMagic || n > MaxKey {
		return in, errors.New("not a block")
	}
	in.Key, in.Size, in.Sum = string(b[18:18+n]), binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	copy(in.writer[:], b[tokenAt:])
	in.seq = binary.LittleEndian.Uint64(b[tokenAt+16:])
	st, err := f.Stat()
	if err == nil && st.Size() != headerSize+int64(in.Size) {
		err = fmt.Errorf("it has %d bytes of data, not %d", st.Size()-headerSize, in.Size)
	}
	return in, err
}

// version is another number each time, also after a restart.
func (s *Store) version() uint64 { return s.epoch + s.seq.Add(1) }

// check says whether a write was done already, or must not be, before its data moves.
func (s *Store) check(key string, t dpu.Token) (done bool, err error) {
	if t.IsZero() {
		return false, nil
	}
	s.mu.Lock()
	in := s.blocks[key]
	s.mu.Unlock()
	if in.writer == t.Writer && in.seq == t.Seq { // also when a former process did it
		return true, nil
	}
	return s.ledger.Check(t)
}

// put stores a block. fill brings the data: into the file's own pages, where the
// device may write them, else into a buffer of pool. Without fill the data is there,
// in the buffer of pool.
func (s *Store) put(in info, t dpu.Token, pool func(int) (mr.Buf, error), fill func(mr.Buf) (mr.Buf, error)) (err error) {
	tmp := filepath.Join(s.dir, fmt.Sprintf("%d-%d%s", os.Getpid(), s.seq.Add(1), unfinished))
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(tmp)
		}
	}()
	if err := f.Truncate(headerSize + int64(in.Size)); err != nil {
		return err
	}
	in.writer, in.seq = t.Writer, t.Seq
	in.Version = s.enter(in.Key)
	defer s.leave(in.Key)
	h := make([]byte, tokenAt+24)
	copy(h, blockMagic[:])
	binary.LittleEndian.PutUint32(h[8:], in.Size)
	binary.LittleEndian.PutUint32(h[12:], in.Sum)
	binary.LittleEndian.PutUint16(h[16:], uint16(len(in.Key)))
	copy(h[18:], in.Key)
	copy(h[tokenAt:], t.Writer[:])
	binary.LittleEndian.PutUint64(h[tokenAt+16:], t.Seq)
	if _, err := f.WriteAt(h, 0); err != nil {
		return err
	}
	if in.Size > 0 {
		if err := s.receive(f, in, pool, fill); err != nil {
			return err
		}
	}
	if s.sync {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	published := false
	if err := s.ledger.Apply(t, func() error {
		published = true
		return s.wrote(in.Key, t, s.publish(tmp, in))
	}); err != nil {
		return err
	}
	if !published { // it was done already
		return os.Remove(tmp)
	}
	return s.syncDir()
}

// wrote tells of a write that was made visible.
func (s *Store) wrote(key string, t dpu.Token, err error) error {
	if err == nil && s.onWrite != nil && !t.IsZero() {
		s.onWrite(key, t)
	}
	return err
}

// enter says that a write of a key begins, and numbers it.
func (s *Store) enter(key string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.begun[key]
	if b == nil {
		b = &begun{}
		s.begun[key] = b
	}
	b.n++
	return s.version()
}

func (s *Store) leave(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.begun[key]
	if b.n--; b.n == 0 {
		delete(s.begun, key)
	}
}

// publish gives a file its name. What the name means and what is known of it change
// together: of two that write one block the one that began last has both.
func (s *Store) publish(tmp string, in info) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.blocks[in.Key]; ok && old.Version > in.Version || s.begun[in.Key].deleted > in.Version {
		return os.Remove(tmp) // as if it had been overwritten, or deleted, at once
	}
	if err := os.Rename(tmp, s.path(in.Key)); err != nil {
		return err
	}
	s.blocks[in.Key] = in
	s.unmap(in.Key)
	return nil
}

// receive brings the data of a block into its file.
func (s *Store) receive(f *os.File, in info, pool func(int) (mr.Buf, error), fill func(mr.Buf) (mr.Buf, error)) error {
	if fill != nil && s.direct.Load() {
		reg, err := mr.MapFile(f, mr.FileConfig{Offset: headerSize, Length: int64(in.Size), Writable: true}, s.pd)
		if err == nil {
			return s.receiveInto(reg, in, fill)
		}
		// Kernels do not let a device write into most file systems' pages.
		if s.direct.Swap(false) {
			slog.Info("blockstore: the device cannot write into files here; blocks go through a buffer, which costs a copy", "err", err)
		}
	}
	b, err := pool(int(in.Size))
	if err != nil {
		return err
	}
	if fill != nil {
		if b, err = fill(b); err != nil {
			if b.Err() == nil {
				_ = b.Release()
			}
			return err
		}
	}
	defer b.Release()
	p, err := b.Bytes()
	if err != nil {
		return err
	}
	if sum := crc32.Checksum(p, castagnoli); sum != in.Sum {
		return errSum
	}
	s.staged.Add(uint64(len(p)))
	_, err = f.WriteAt(p, headerSize)
	return err
}

var errSum = errors.New("the data is not what its checksum says")

func (s *Store) receiveInto(reg *mr.Region, in info, fill func(mr.Buf) (mr.Buf, error)) error {
	b, err := reg.Buf(0, int(in.Size))
	if err == nil {
		b, err = fill(b)
	}
	if err == nil {
		var p []byte
		if p, err = b.Bytes(); err == nil && crc32.Checksum(p, castagnoli) != in.Sum {
			err = errSum
		}
	}
	if b.Err() == nil {
		_ = b.Release()
	}
	if err == nil {
		if s.sync {
			err = reg.Sync(0, int(in.Size))
		}
	}
	// A transfer that was given up may go on for a moment: the mapping stays until then.
	if reg.Close() != nil {
		go func() {
			for range 1000 {
				time.Sleep(10 * time.Millisecond)
				if reg.Close() == nil {
					return
				}
			}
			slog.Error("blockstore: a mapping cannot be closed", "block", in.Key)
		}()
	}
	return err
}

func (s *Store) syncDir() error {
	if !s.sync {
		return nil
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// get gives the data of a block as memory that the device can read.
func (s *Store) get(key string) (info, mr.Buf, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, ok := s.blocks[key]
	if !ok {
		return in, mr.Buf{}, fs.ErrNotExist
	}
	if in.Size == 0 {
		return in, mr.Buf{}, nil
	}
	e := s.mapped[key]
	if e == nil {
		f, err := os.OpenFile(s.path(key), os.O_RDWR, 0) // Linux before 6.2 wants it, though nothing is written
		if err != nil {
			return in, mr.Buf{}, err
		}
		defer f.Close()
		reg, err := mr.MapFile(f, mr.FileConfig{Offset: headerSize, Length: int64(in.Size)}, s.pd)
		if err != nil {
			return in, mr.Buf{}, err
		}
		e = s.lru.PushFront(&mapping{key: key, reg: reg, n: in.Size})
		s.mapped[key] = e
		s.bytes += int64(in.Size)
		defer s.trim() // when the block is held: it must not be the one that goes
	}
	s.lru.MoveToFront(e)
	m := e.Value.(*mapping)
	b, err := m.reg.Buf(0, int(m.n))
	return in, b, err
}

// trim closes what was not read for longest, beyond the limit; what is being read stays.
func (s *Store) trim() {
	for e := s.lru.Back(); e != nil && s.bytes > s.limit; {
		m, prev := e.Value.(*mapping), e.Prev()
		if m.reg.Close() == nil {
			s.lru.Remove(e)
			delete(s.mapped, m.key)
			s.bytes -= int64(m.n)
		}
		e = prev
	}
	k := 0
	for _, m := range s.stale {
		if m.reg.Close() != nil {
			s.stale[k] = m
			k++
		}
	}
	s.stale = s.stale[:k]
}

// unmap forgets the mapping of a block that is not there any more.
func (s *Store) unmap(key string) {
	e := s.mapped[key]
	if e == nil {
		return
	}
	m := e.Value.(*mapping)
	s.lru.Remove(e)
	delete(s.mapped, key)
	s.bytes -= int64(m.n)
	if m.reg.Close() != nil {
		s.stale = append(s.stale, m)
	}
}

func (s *Store) stat(key string) (info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, ok := s.blocks[key]
	if !ok {
		return in, fs.ErrNotExist
	}
	return in, nil
}

// list gives up to n blocks behind a key, by key.
func (s *Store) list(after string, n int) []info {
	s.mu.Lock()
	defer s.mu.Unlock()
	var l []info
	for k, in := range s.blocks {
		if k > after {
			l = append(l, in)
		}
	}
	sort.Slice(l, func(i, j int) bool { return l[i].Key < l[j].Key })
	return l[:min(n, len(l))]
}

func (s *Store) delete(key string, t dpu.Token) error {
	if err := s.ledger.Apply(t, func() error { return s.wrote(key, t, s.remove(key)) }); err != nil {
		return err
	}
	return s.syncDir()
}

func (s *Store) remove(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.begun[key]; b != nil {
		b.deleted = s.version()
	}
	if _, ok := s.blocks[key]; !ok {
		return fs.ErrNotExist
	}
	if err := os.Remove(s.path(key)); err != nil {
		return err
	}
	delete(s.blocks, key)
	s.unmap(key)
	return nil
}

// Len is how many blocks there are.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.blocks)
}

// Close ends all mappings. mr.ErrInUse while one is being read.
func (s *Store) Close() error {
	s.dropUploads(func(upload, *parts) bool { return true })
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for key := range s.mapped {
		s.unmap(key)
	}
	for _, m := range s.stale {
		errs = append(errs, m.reg.Close())
	}
	return errors.Join(errs...)
}
