package roce

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/link"
)

// Limits of the device. A queue's memory is allocated when it is made, so they
// also bound what one call can take.
const (
	maxQP       = 1 << 16
	maxQPWR     = 1 << 14
	maxSGE      = 32
	maxInline   = 512 // bytes
	maxRdAtomic = 128 // as requester and as responder
	maxAH       = 1 << 16
	maxMcastGrp = 8192
	maxMcastQP  = 56      // queue pairs of one group
	maxMsg      = 1 << 31 // bytes
	defaultPKey = 0xffff  // the only one
	gsiQPN      = 1       // QP 1: management datagrams
	gsiQKey     = 1<<31 | 1<<16
	mcastQPN    = 0xffffff // destination of what is sent to a group
	devicePort  = 1        // the only port
)

// Config describes a software device.
type Config struct {
	Name  string       // "soft:" and the first address when empty
	Addrs []netip.Addr // one GID each, in order; 127.0.0.1 when empty
	Net   link.Network // nil: UDP
	// Seed makes keys and numbers the same in every run, for a test; 0: random.
	Seed uint64
}

// Device is a software device that can be opened.
type Device struct {
	cfg  Config
	info provider.DeviceInfo
}

// udp is the network of devices that name none: nodes are told apart by it.
var udp = sync.OnceValue(func() link.Network { return link.UDP(link.UDPOptions{}) })

// New describes a device; nothing is opened.
func New(cfg Config) *Device {
	if len(cfg.Addrs) == 0 {
		cfg.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	cfg.Addrs = slices.Clone(cfg.Addrs)
	for i, a := range cfg.Addrs {
		cfg.Addrs[i] = a.Unmap()
	}
	if cfg.Name == "" {
		cfg.Name = "soft:" + cfg.Addrs[0].String()
	}
	return &Device{cfg: cfg, info: provider.DeviceInfo{
		Name: cfg.Name, GUID: guidOf(cfg.Addrs[0]), Index: -1,
		NodeType: provider.NodeCA, Transport: provider.TransportIB, Soft: true,
	}}
}

// Info describes the device.
func (d *Device) Info() provider.DeviceInfo { return d.info }

// guidOf makes a node GUID of an address; the local bit says that nobody assigned it.
func guidOf(a netip.Addr) provider.GUID {
	h := uint64(14695981039346656037)
	b := a.As16()
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return provider.GUID(h | 1<<57)
}

// nodes are the devices that are open in this process. The mutex is held while
// one opens or closes, so that an address which is being closed can be opened.
var nodes = struct {
	sync.Mutex
	m map[nodeKey]*node
}{m: map[nodeKey]*node{}}

type nodeKey struct {
	net   link.Network
	addrs string
}

// Open opens the device. All contexts of a process on the same addresses share
// it; the last Close closes its sockets.
//
// Verb: ibv_open_device(3).
func (d *Device) Open() (provider.Context, error) {
	net := d.cfg.Net
	if net == nil {
		net = udp()
	}
	key := nodeKey{net: net, addrs: fmt.Sprint(d.cfg.Addrs)}
	nodes.Lock()
	defer nodes.Unlock()
	n := nodes.m[key]
	if n == nil {
		var err error
		if n, err = d.start(net, key); err != nil {
			return nil, err
		}
		nodes.m[key] = n
	}
	n.refs++
	c := &devCtx{n: n, info: d.info}
	n.ctxs[c] = struct{}{}
	return c, nil
}

// Remove tells everybody who has the device open that it is gone, as the driver
// of one that is pulled out does. What it sends is for the caller to stop.
func (d *Device) Remove() {
	net := d.cfg.Net
	if net == nil {
		net = udp()
	}
	nodes.Lock()
	defer nodes.Unlock()
	n := nodes.m[nodeKey{net: net, addrs: fmt.Sprint(d.cfg.Addrs)}]
	if n == nil {
		return
	}
	for c := range n.ctxs {
		c.raise(provider.EventDeviceFatal, 0, 0)
	}
	if m := n.manager(); m != nil {
		m.DeviceRemoved()
	}
}

// start opens the links.
func (d *Device) start(net link.Network, key nodeKey) (*node, error) {
	n := &node{
		name: d.info.Name, key: key, net: net, base: time.Now(),
		ctxs: map[*devCtx]struct{}{}, qps: map[uint32]*qp{}, ahs: map[uint64]*ah{}, groups: map[netip.Addr][]*qp{},
	}
	n.mem.seed = d.cfg.Seed
	n.inMemory = net != udp()
	n.own = &devCtx{n: n, info: d.info}
	if net.Virtual() { // a run can be repeated: keys and numbers, too
		n.mem.seed = uint64(d.info.GUID)
	}
	links := make([]link.Link, 0, len(d.cfg.Addrs))
	for i, a := range d.cfg.Addrs {
		l, err := net.Open(a, &inbox{n, i})
		if err != nil {
			for _, l := range links {
				_ = l.Close()
			}
			return nil, err // says what is in the way, and what helps
		}
		links = append(links, l)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links, n.open = links, true
	n.dirty, n.stuck = make([]bool, len(links)), make([]bool, len(links))
	return n, nil
}

// Close closes the context, and with the last one the device.
//
// Verb: ibv_close_device(3).
func (c *devCtx) Close() error {
	c.once.Do(func() {
		c.Interrupt()
		c.n.release(c)
	})
	return nil
}

func (n *node) release(c *devCtx) {
	nodes.Lock()
	defer nodes.Unlock()
	delete(n.ctxs, c)
	if n.refs--; n.refs > 0 {
		return
	}
	delete(nodes.m, n.key)
	n.cmOnce.Do(func() {}) // no manager from now on, if there was none
	if n.cm != nil {
		n.cm.Close()
	}
	n.mu.Lock()
	n.open = false
	if n.timers.timer != nil {
		n.timers.timer.Stop()
	}
	n.mu.Unlock()
	for _, l := range n.links {
		_ = l.Close()
	}
	n.own.Interrupt()
}
