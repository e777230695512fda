package softroce

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
)

// logMax is how much of a kernel log's end is kept over all boots of a host.
const logMax = 8 << 20

// kernelLog collects what a guest's kernel says, from its boot on. The guest
// sends it at once, so most of it is here even if the guest dies.
type kernelLog struct {
	mu      sync.Mutex // guards what follows
	text    []byte
	bad     []string // the first line of each complaint
	waiting map[string]chan struct{}
}

const syncMarker = "softroce-sync "

// complaint is how the kernel begins to say that something is broken.
var complaint = regexp.MustCompile(`^\[ *[0-9.]+\] (?:\[[^\]]*\] )?(?:WARNING: |BUG: |BUG at |kernel BUG at |Oops: |Oops\b|general protection fault|Kernel panic|Unable to handle|UBSAN: |KASAN: |INFO: task .* blocked for more than|refcount_t: |Internal error)`)

func (l *kernelLog) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.text) > 0 {
		l.text = append(l.text, "[restarted]\n"...)
	}
}

func (l *kernelLog) add(rec []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := bytes.Index(rec, []byte(syncMarker)); i >= 0 {
		key := strings.TrimSpace(string(rec[i:]))
		if ch := l.waiting[key]; ch != nil {
			delete(l.waiting, key)
			close(ch)
			return
		}
	}
	if complaint.Match(rec) {
		l.bad = append(l.bad, strings.TrimSpace(string(rec)))
	}
	l.text = append(l.text, rec...)
	if len(l.text) > 2*logMax {
		l.text = append([]byte(nil), l.text[len(l.text)-logMax:]...)
	}
}

func (l *kernelLog) snapshot() (text string, bad []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text), append([]string(nil), l.bad...)
}

var syncCount atomic.Uint64

// Dmesg returns the kernel's log of all boots of this host. It waits until what
// the kernel has said by now has arrived; of a VM that is down it returns what did.
func (h *Host) Dmesg(ctx context.Context) (string, error) {
	err := h.syncLog(ctx)
	text, _ := h.log.snapshot()
	return text, err
}

// Warnings returns the first line of every WARNING, BUG, Oops and the like that
// the kernel reported in any boot of this host. It waits as Dmesg does.
func (h *Host) Warnings(ctx context.Context) ([]string, error) {
	err := h.syncLog(ctx)
	_, bad := h.log.snapshot()
	return bad, err
}

func (h *Host) syncLog(ctx context.Context) error {
	client, _, err := h.up()
	if err != nil {
		return nil // nothing more will come
	}
	key := fmt.Sprintf("%s%d", syncMarker, syncCount.Add(1))
	done := make(chan struct{})
	h.log.mu.Lock()
	if h.log.waiting == nil {
		h.log.waiting = make(map[string]chan struct{})
	}
	h.log.waiting[strings.TrimSpace(key)] = done
	h.log.mu.Unlock()
	if err := client.Sync(key); err != nil {
		return nil // it died just now
	}
	select {
	case <-done:
	case <-client.Done():
	case <-ctx.Done():
		return h.wrap("kernel log", nil, ctx.Err())
	}
	return nil
}
