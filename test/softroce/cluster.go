package softroce

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/zrdma/zrdma/test/softroce/hub"
)

// Cluster is some VMs on common L2 networks.
type Cluster struct {
	cfg   Config
	hosts []*Host
	hubs  []*hub.Hub
	pcaps []*capture

	accelMu sync.Mutex // guards accel; held while KVM is being proved
	accel   string     // of hosts of this machine's architecture

	closeOnce sync.Once
	closeErr  error
}

// Start boots the VMs and returns when rxe is up on all of them.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("softroce: VMs are run on linux/amd64 only, not on %s/%s: %w", runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)
	}
	c := &Cluster{cfg: cfg, accel: cfg.Accel}
	if err := c.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("softroce: prepare: %w", err), c.Close())
	}
	if err := c.bootAll(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) prepare(ctx context.Context) error {
	platforms := map[string]*platform{}
	for i := range c.cfg.Hosts {
		arch := c.cfg.arch(i)
		if platforms[arch] == nil {
			p, err := newPlatform(ctx, c.cfg, arch)
			if err != nil {
				return err
			}
			platforms[arch] = p
		}
		c.hosts = append(c.hosts, &Host{cluster: c, platform: platforms[arch], index: i})
	}
	for card := range c.cfg.Rxe {
		hc := hub.Config{Ports: c.cfg.Hosts, Seed: c.cfg.Seed + uint64(card)}
		if c.cfg.Pcap != "" {
			name := c.cfg.Pcap
			if card > 0 {
				name = fmt.Sprintf("%s.%d", name, card)
			}
			cp, err := newCapture(name)
			if err != nil {
				return err
			}
			c.pcaps = append(c.pcaps, cp)
			hc.Pcap = cp.pcap
		}
		c.hubs = append(c.hubs, hub.New(hc))
	}
	return nil
}

// bootAll boots all VMs side by side. The first failure ends the others.
func (c *Cluster) bootAll(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, h := range c.hosts {
		wg.Go(func() {
			if err := h.boot(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// Len is the number of VMs.
func (c *Cluster) Len() int { return len(c.hosts) }

// Host returns VM i, from 0.
func (c *Cluster) Host(i int) *Host { return c.hosts[i] }

// Hub returns the network that card eth<card> of every VM is on. Port i of the
// hub is VM i.
func (c *Cluster) Hub(card int) *hub.Hub { return c.hubs[card] }

// Close kills the VMs and writes the captures out. Twice is nil.
func (c *Cluster) Close() error {
	c.closeOnce.Do(func() {
		for _, h := range c.hosts {
			h.close()
		}
		for _, h := range c.hubs {
			c.closeErr = errors.Join(c.closeErr, h.Close())
		}
		for _, p := range c.pcaps {
			c.closeErr = errors.Join(c.closeErr, p.close())
		}
	})
	err := c.closeErr
	c.closeErr = nil
	return err
}

// capture is a pcap file.
type capture struct {
	file *os.File
	pcap *hub.Pcap
}

func newCapture(name string) (*capture, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	p, err := hub.NewPcap(f)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &capture{f, p}, nil
}

func (c *capture) close() error { return errors.Join(c.pcap.Flush(), c.file.Close()) }
