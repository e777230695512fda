package mr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/devkind"
	"github.com/zrdma/zrdma/verbs"
)

// GrantQP is a connected queue pair as grants need it; package qp implements it.
// All methods may be called from any goroutine.
type GrantQP interface {
	// PD is the protection domain of the queue pair.
	PD() *verbs.PD

	// PostControl posts wr: a WRBindMW or a WRLocalInv. The queue pair sets its ID
	// and SendSignaled, and when the device has a bind, its BindMW's key (SetRKey).
	// What is posted later is executed later; it may pass what was posted before. It
	// waits for room in the send queue until ctx ends. When it returns nil, done is
	// called exactly once, from any goroutine, with nil for a good completion, else an
	// error (a flush, or that the queue pair was destroyed); done does not block and
	// posts nothing. When it returns an error nothing was posted and done is never
	// called.
	PostControl(ctx context.Context, wr verbs.SendWR, done func(error)) error

	// Kill moves the queue pair to ERR, or destroys it, and returns nil once every
	// request posted to it has been flushed or the destruction has succeeded. It
	// is the last resort of Revoke and ends the connection. A queue pair that is
	// dead already returns nil. After an error or the end of ctx nothing is
	// proven. If destroyed is true the device has finished; otherwise the queue
	// pair is in ERR and its last packet may still be on its way into memory.
	Kill(ctx context.Context) (destroyed bool, err error)
}

// Mechanism is how a grant is made and fenced.
type Mechanism uint8

// Values of Mechanism.
const (
	// ByProbing: windows where the device has them, else dedicated regions.
	ByProbing Mechanism = iota
	// ByWindow: a type 2B memory window. One range, one direction, one queue pair.
	// Revoke posts LOCAL_INV and waits for its good completion; on rxe, which a peer's
	// invalidation behind that would bring down, it deallocates the window.
	ByWindow
	// ByRegion: a registration of its own. One range, one direction; but every queue
	// pair of the protection domain could use the key. Revoke deregisters.
	ByRegion
	// ByQueuePair: the key of the whole region, which must have been registered
	// with remote rights. One queue pair only if the domain has no other. Revoke
	// moves the queue pair to ERR and drains it, which ends the connection. It is
	// never chosen by probing: it shows more than was asked for.
	ByQueuePair
)

var mechanisms = [...]string{"by probing", "memory window", "dedicated region", "queue pair"}

// String names it.
func (m Mechanism) String() string {
	if int(m) < len(mechanisms) {
		return mechanisms[m]
	}
	return fmt.Sprintf("Mechanism(%d)", uint8(m))
}

// GranterConfig describes a Granter. The zero value is fit for most.
type GranterConfig struct {
	Mechanism Mechanism // ByProbing

	// Quarantine is how long memory is kept after a fence that a device may
	// overrun by the packet it is just copying: LOCAL_INV, deallocating a window
	// and a queue pair in ERR. On Linux a grace period of the kernel follows, some
	// tens of milliseconds, which is what proves it. 0: DefaultQuarantine of the
	// device. Negative: none.
	Quarantine time.Duration

	// Grace bounds each step of a fence; 0: 5 s. After it the next, harder one is
	// tried: deallocating the window, then killing the queue pair. When nothing is
	// proven after the last the memory is leaked, and counted.
	Grace time.Duration

	// IdleWindows are kept for the next Grant; 0: 64, negative: none.
	IdleWindows int
}

const (
	softQuarantine = 3 * time.Millisecond
	defaultGrace   = 5 * time.Second
	defaultIdle    = 64
)

func (cfg GranterConfig) withDefaults() (GranterConfig, error) {
	if cfg.Mechanism > ByQueuePair {
		return cfg, fmt.Errorf("mr: GranterConfig.Mechanism: %v: %w", cfg.Mechanism, syscall.EINVAL)
	}
	if cfg.Grace < 0 {
		return cfg, fmt.Errorf("mr: GranterConfig.Grace: %v: %w", cfg.Grace, syscall.EINVAL)
	}
	if cfg.Grace == 0 {
		cfg.Grace = defaultGrace
	}
	if cfg.IdleWindows == 0 {
		cfg.IdleWindows = defaultIdle
	}
	return cfg, nil
}

// Granter makes grants on the queue pairs of one protection domain. It finds
// out how the device can, and keeps windows for reuse.
type Granter struct {
	pd    *verbs.PD
	cfg   GranterConfig
	mech  Mechanism
	quiet time.Duration
	onBus bool // hardware
	onRXE bool

	settled func(time.Duration, func()) // the package's, but in tests with a clock of their own

	mu     sync.Mutex
	idle   []*window // guarded by mu, as all below
	spare  []*Grant  // recycled
	open   int       // grants that have not ended
	closed bool
	stuck  []*Grant // their windows and regions may still be live in the device
	leaks  int

	granted, revoked, harder, killed atomic.Uint64
}

// NewGranter probes the device of d by allocating a window.
func NewGranter(d *verbs.PD, cfg GranterConfig) (*Granter, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	g := &Granter{pd: d, cfg: cfg, mech: cfg.Mechanism, quiet: cfg.Quarantine, onBus: devkind.IsHardware(d.Context()), onRXE: devkind.IsRXE(d.Context()), settled: settled}
	if g.quiet == 0 {
		g.quiet = DefaultQuarantine(d.Context())
	}
	g.quiet = max(g.quiet, 0)
	if g.mech == ByProbing || g.mech == ByWindow {
		w, err := d.AllocMW(verbs.MWType2)
		switch {
		case err == nil:
			g.mech = ByWindow
			g.idle = append(g.idle, &window{mw: w})
		case g.mech == ByWindow || !canDoWithout(err):
			return nil, fmt.Errorf("mr: probing for memory windows: %w", err)
		default:
			g.mech = ByRegion
			slog.Info("mr: the device has no type 2 memory windows: grants take a registration each", "device", d.Context().Name(), "err", err)
		}
	}
	return g, nil
}

// DefaultQuarantine is how long memory is kept after a fence that the device may
// overrun: 3 ms on rxe, siw and the like, none on hardware, which is believed to
// be strict, and none on this module's own software device, which is.
func DefaultQuarantine(c *verbs.Context) time.Duration {
	if devkind.IsHardware(c) || strings.HasPrefix(c.Name(), "soft:") {
		return 0
	}
	return softQuarantine
}

// canDoWithout tells a device without windows from a failure.
func canDoWithout(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS)
}

// Mechanism is what grants are made by. Memory whose region does not allow
// windows to be bound is granted ByRegion nevertheless.
func (g *Granter) Mechanism() Mechanism { return g.mech }

// Quarantine is how long memory is kept after a fence that may be overrun.
func (g *Granter) Quarantine() time.Duration { return g.quiet }

// Grant exposes exactly the bytes of b, in one direction, to the peer of q, until
// Revoke. It takes b: DeviceReads lets the peer read, DeviceWrites lets it write.
// It returns when the exposure is in effect. When it fails the caller still owns
// b, unless the error is a *LostError: ctx ended when the exposure could already
// have begun, and the memory goes back to its pool once that is fenced.
func (g *Granter) Grant(ctx context.Context, q GrantQP, b Buf, d Direction) (*Grant, error) {
	t, err := g.Start(ctx, q, b, d)
	if err != nil {
		return nil, err
	}
	select {
	case <-t.Bound():
	case <-ctx.Done():
		t.Abandon()
		return nil, &LostError{ctx.Err()}
	}
	if t.Err() != nil {
		return nil, t.undo(ctx)
	}
	return t, nil
}

// LostError is an error after which a buffer is not the caller's any more: the
// library keeps it until the device is provably done, and then releases it.
type LostError struct{ Cause error }

func (e *LostError) Error() string {
	return "mr: " + e.Cause.Error() + "; the memory returns to its pool when the device is done with it"
}

// Unwrap gives the cause.
func (e *LostError) Unwrap() error { return e.Cause }
