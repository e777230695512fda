package dpu

import (
	"container/list"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
)

const (
	ledgerWindow  = 4096
	ledgerWriters = 16384
)

// Ledger is what a server keeps so that writes can be done again safely: which were
// done, and which agents are fenced. It lives in memory; a server that is started
// again has another Boot, by which writers learn that it has forgotten.
//
// It remembers the last 4096 writes of a writer, and 16384 writers. To one that it
// has forgotten it is like a server that was started again: it has another boot.
type Ledger struct {
	mu      sync.Mutex
	boot    uint64 // of writers that come; guarded by mu, as all below
	writers map[Writer]*ledgerWriter
	lru     *list.List // of *ledgerWriter, the most recently used in front
}

type ledgerWriter struct {
	name  Writer
	boot  uint64 // what was before it is not known
	epoch uint32 // below it agents are fenced
	max   uint64
	done  map[uint64]bool
	at    *list.Element
}

// NewLedger makes an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{boot: newBoot(), writers: map[Writer]*ledgerWriter{}, lru: list.New()}
}

func newBoot() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:]) | 1
}

// Boot is a random number, never 0, of what the ledger knows of a writer: while it is
// the same, nothing of the writer's was forgotten.
func (l *Ledger) Boot(w Writer) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x := l.writers[w]; x != nil {
		return x.boot
	}
	return l.boot
}

func (l *Ledger) writer(w Writer, make bool) *ledgerWriter {
	x := l.writers[w]
	if x == nil && make {
		if len(l.writers) >= ledgerWriters {
			old := l.lru.Back().Value.(*ledgerWriter)
			l.lru.Remove(old.at)
			delete(l.writers, old.name)
			l.boot = newBoot() // it may come back
		}
		x = &ledgerWriter{name: w, boot: l.boot, done: map[uint64]bool{}}
		x.at = l.lru.PushFront(x)
		l.writers[w] = x
	}
	if x != nil {
		l.lru.MoveToFront(x.at)
	}
	return x
}

// Fence refuses what agents of w with epochs below epoch ask for from now on. An
// Apply that is under way has ended when it returns.
func (l *Ledger) Fence(w Writer, epoch uint32) (boot uint64, err error) {
	if w == (Writer{}) {
		return 0, fmt.Errorf("dpu: a fence for nobody: the writer is zero")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.writer(w, true)
	x.epoch = max(x.epoch, epoch)
	return x.boot, nil
}

// Check says whether the write t was done already, or must not be: ErrFenced, or
// ErrStale. Apply does too; Check is for before the data moves.
func (l *Ledger) Check(t Token) (done bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.check(t)
}

func (l *Ledger) check(t Token) (done bool, err error) {
	if t.IsZero() {
		return false, nil
	}
	x := l.writer(t.Writer, false)
	switch {
	case x == nil:
	case t.Epoch != 0 && t.Epoch < x.epoch:
		return false, fmt.Errorf("%w (epoch %d, now %d)", ErrFenced, t.Epoch, x.epoch)
	case x.done[t.Seq]:
		return true, nil
	case t.Seq+ledgerWindow <= x.max:
		return false, fmt.Errorf("%w: %d later ones came since", ErrStale, x.max-t.Seq)
	}
	// Of what came before this process, or before the writer was forgotten, nothing is
	// known. The writer itself may begin a write; nobody else may, and not again.
	if (x == nil || t.Boot != x.boot) && (t.Epoch != 0 || t.Replay) {
		return false, fmt.Errorf("%w: it was started again", ErrStale)
	}
	return false, nil
}

// Apply does the write t by calling f, unless it was done already or must not be.
// f must make it visible in one step; when it fails nothing was done. Apply of one
// ledger is one at a time.
func (l *Ledger) Apply(t Token, f func() error) error {
	if t.IsZero() {
		return f()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	done, err := l.check(t)
	if err != nil || done {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	x := l.writer(t.Writer, true)
	x.done[t.Seq] = true
	if t.Seq > x.max {
		if t.Seq-x.max < ledgerWindow {
			for s := x.max; s < t.Seq; s++ {
				if s >= ledgerWindow {
					delete(x.done, s-ledgerWindow)
				}
			}
		} else {
			for s := range x.done {
				if s+ledgerWindow <= t.Seq {
					delete(x.done, s)
				}
			}
		}
		x.max = t.Seq
	}
	return nil
}
