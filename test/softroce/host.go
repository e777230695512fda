package softroce

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zrdma/zrdma/test/softroce/internal/agent"
)

// ErrDown says that a VM is not running: it was killed, or it died.
var ErrDown = errors.New("the VM is down")

// Host is one VM.
type Host struct {
	cluster  *Cluster
	platform *platform
	index    int
	log      kernelLog

	life sync.Mutex // held by the one who boots

	mu     sync.Mutex // guards what follows
	vm     *vm        // the last one started
	client *agent.Client
	boots  Boot
	closed bool
}

// Boot says how the last boot of a host went.
type Boot struct {
	Accel string        // "kvm" or "tcg"
	Wall  time.Duration // from QEMU's start to rxe being up
	Guest time.Duration // the same, by the guest's clock
	Steps []BootStep
}

// BootStep is a step of the guest's init and the guest's uptime at its end.
type BootStep struct {
	Name string
	At   time.Duration
}

// Index is i in Cluster.Host(i).
func (h *Host) Index() int { return h.index }

// Arch is the architecture, in Go's words.
func (h *Host) Arch() string { return h.platform.arch }

// Kernel is the release of the kernel.
func (h *Host) Kernel() string { return h.platform.initrd.kernel.Release }

// Name is the host's name, host<i>; every guest can resolve it.
func (h *Host) Name() string { return hostName(h.index) }

// IP is the IPv4 address of a card.
func (h *Host) IP(card int) string { return ipv4(h.index, card) }

// IP6 is the IPv6 address of a card.
func (h *Host) IP6(card int) string { return ipv6(h.index, card) }

// Boot describes the last boot.
func (h *Host) Boot() Boot {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.boots
}

// CPUTime is the processor time of this machine that the VM has used since its
// last start, emulation included. Where a guest's own count grows while it waits for
// a processor, this one does not.
func (h *Host) CPUTime() (time.Duration, error) {
	_, v, err := h.up()
	if err != nil {
		return 0, err
	}
	d, err := v.cpuTime()
	if err != nil {
		return 0, h.wrap("processor time", nil, err)
	}
	return d, nil
}

// Console is what the VM's console printed since its last start.
func (h *Host) Console() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.vm == nil {
		return ""
	}
	return h.vm.console.text()
}

// Kill ends the VM as a power cut does. Processes in it end with ErrDown.
func (h *Host) Kill() {
	h.mu.Lock()
	v := h.vm
	h.mu.Unlock()
	if v != nil {
		v.kill()
	}
}

// close is Kill, and nothing is booted any more.
func (h *Host) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.Kill()
}

// Restart kills the VM if it still runs and boots it again, with the same
// addresses and a new layer above the host's files.
func (h *Host) Restart(ctx context.Context) error {
	h.Kill()
	h.life.Lock()
	defer h.life.Unlock()
	return h.boot(ctx)
}

// boot decides on the accelerator and boots with it.
func (h *Host) boot(ctx context.Context) error {
	c := h.cluster
	if h.platform.foreign() {
		return h.bootWith(ctx, "tcg")
	}
	c.accelMu.Lock()
	if c.accel != "" {
		accel := c.accel
		c.accelMu.Unlock()
		return h.bootWith(ctx, accel)
	}
	defer c.accelMu.Unlock() // the other hosts wait for the answer
	key := accelKey(h.platform.qemu, h.Kernel())
	if !kvmUsable() || recallAccel(c.cfg.Kernel.Cache, key) == "tcg" {
		c.accel = "tcg"
		return h.bootInTurn(ctx)
	}
	begin := time.Now()
	v, err := h.launch("kvm")
	if err != nil {
		return err
	}
	select {
	case <-v.console.alive:
		c.accel = "kvm"
	case <-v.exited:
	case <-time.After(kvmProof):
	case <-ctx.Done():
		v.kill()
		return h.wrap("prove KVM", v, ctx.Err())
	}
	if c.accel == "" {
		v.kill()
		c.accel = "tcg"
		fmt.Fprintln(c.cfg.Log, "softroce: KVM does not boot this kernel; going on with emulation (remembered; `softroce reset` forgets)")
	}
	if err := rememberAccel(c.cfg.Kernel.Cache, key, c.accel); err != nil {
		fmt.Fprintln(c.cfg.Log, "softroce: cannot remember that:", err)
	}
	if c.accel == "tcg" {
		return h.bootInTurn(ctx)
	}
	c.accelMu.Unlock()
	defer c.accelMu.Lock()
	return h.finishBoot(ctx, v, "kvm", begin)
}

// bootInTurn is called with accelMu held and lets the others go on.
func (h *Host) bootInTurn(ctx context.Context) error {
	accel := h.cluster.accel
	h.cluster.accelMu.Unlock()
	defer h.cluster.accelMu.Lock()
	return h.bootWith(ctx, accel)
}

func (h *Host) launch(accel string) (*vm, error) {
	c := h.cluster
	gc := guestConfig(c.cfg, h.index)
	gc.Userland = h.platform.root != ""
	conf, err := h.platform.initrd.forHost(gc)
	if err != nil {
		return nil, h.wrap("configure", nil, err)
	}
	args, err := h.platform.qemuArgs(c.cfg, accel, h.index)
	if err != nil {
		return nil, h.wrap("configure", nil, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, h.wrap("start", nil, ErrDown)
	}
	v, err := startVM(h.platform.qemu, args, [][]byte{h.platform.initrd.archive, conf}, c.cfg.Rxe)
	if err != nil {
		return nil, h.wrap("start", nil, err)
	}
	h.vm, h.client = v, nil
	return v, nil
}

func (h *Host) bootWith(ctx context.Context, accel string) error {
	begin := time.Now()
	v, err := h.launch(accel)
	if err != nil {
		return err
	}
	return h.finishBoot(ctx, v, accel, begin)
}

// finishBoot plugs a VM in and waits until it is ready.
func (h *Host) finishBoot(ctx context.Context, v *vm, accel string, begin time.Time) error {
	c := h.cluster
	for card, conn := range v.cards {
		if err := c.hubs[card].Attach(h.index, conn); err != nil {
			v.kill()
			return h.wrap("attach to the network", nil, err)
		}
	}
	h.log.restart()
	client := agent.NewClient(v.agent, h.log.add)
	ctx, cancel := context.WithTimeout(ctx, c.cfg.BootTimeout)
	defer cancel()
	hello, err := h.waitReady(ctx, v, client)
	if err != nil {
		v.kill()
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.client = client
	h.boots = Boot{Accel: accel, Wall: time.Since(begin), Guest: seconds(hello.Uptime)}
	for _, s := range hello.Steps {
		h.boots.Steps = append(h.boots.Steps, BootStep{s.Step, seconds(s.Uptime)})
	}
	return nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (h *Host) waitReady(ctx context.Context, v *vm, client *agent.Client) (agent.Hello, error) {
	type answer struct {
		hello agent.Hello
		err   error
	}
	ready := make(chan answer, 1)
	go func() {
		hello, err := client.WaitReady(ctx) // ends with the VM at the latest
		ready <- answer{hello, err}
	}()
	select {
	case a := <-ready:
		if a.err == nil {
			return a.hello, nil
		}
		if ctx.Err() == nil {
			// The agent's line broke first; QEMU's end or the console says why.
			select {
			case <-v.exited:
			case <-v.console.failed:
			case <-time.After(5 * time.Second):
			}
		}
	case <-v.exited:
	case <-v.console.failed:
	}
	select {
	case <-v.exited:
		<-v.console.done // its last words
	default:
	}
	if why := v.console.why(); why != "" {
		return agent.Hello{}, h.wrap("guest set-up", v, errors.New(why))
	}
	select {
	case <-v.exited:
		return agent.Hello{}, h.wrap("boot", v, fmt.Errorf("qemu ended: %w", errors.Join(v.err, ErrDown)))
	default:
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return agent.Hello{}, h.wrap("boot", v, fmt.Errorf("not ready within %v: %w", h.cluster.cfg.BootTimeout, ctx.Err()))
	}
	return agent.Hello{}, h.wrap("boot", v, errors.Join(ctx.Err(), ErrDown))
}

// wrap names the host and the step, and shows the console's end if there is one.
func (h *Host) wrap(step string, v *vm, err error) error {
	if v == nil {
		return fmt.Errorf("softroce: %s: %s: %w", h.Name(), step, err)
	}
	return fmt.Errorf("softroce: %s: %s: %w; %s", h.Name(), step, err, v.console.end())
}

// up returns the connection to the agent of a VM that runs.
func (h *Host) up() (*agent.Client, *vm, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.client == nil {
		return nil, nil, h.wrap("reach", nil, ErrDown)
	}
	select {
	case <-h.client.Done():
		return nil, nil, h.wrap("reach", h.vm, ErrDown)
	default:
		return h.client, h.vm, nil
	}
}
