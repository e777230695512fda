package cm

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/link"
)

// Manager is the connection manager of one device.
//
// Order of locks: id.mu, Manager.mu. The device is called with id.mu at most to
// change a queue pair, and with neither to send; so SendMAD may bring the answer
// before it returns.
type Manager struct {
	port  Port
	start sync.Once // of what needs the device's Context
	lim   limits    // set by start

	pdMu sync.Mutex
	pd   provider.PD // guarded by pdMu: of ids that bring none

	mu       sync.Mutex
	mc       *machine          // guarded by mu, as all below
	timer    *time.Timer       // runs out at timerAt
	timerAt  time.Time         // zero when it does not run
	ports    map[portKey][]*id // who is bound
	ids      map[*id]struct{}  // open ones
	gone     bool              // the device is
	queue    []outgoing        // to be sent
	flushing bool              // a goroutine sends what is in queue
	closed   bool
}

// limits are the device's.
type limits struct {
	respRes, initDepth, ackDelay uint8
}

var (
	_ provider.CM          = (*Manager)(nil)
	_ provider.CMDevices   = (*Manager)(nil)
	_ provider.CMResolver  = (*Manager)(nil)
	_ provider.CMEndpoints = (*Manager)(nil)
)

// New makes the manager of a device. It calls nothing of p but Seed.
func New(p Port) *Manager {
	var seed [32]byte
	s, ok := p.(Seeder)
	for i := 0; i < len(seed); i += 8 {
		if v := rand.Uint64(); !ok {
			be.PutUint64(seed[i:], v)
		} else {
			be.PutUint64(seed[i:], s.Seed())
		}
	}
	return &Manager{
		port: p, mc: newMachine(0, rand.New(rand.NewChaCha8(seed))),
		ports: map[portKey][]*id{}, ids: map[*id]struct{}{},
	}
}

// setup asks the device what it is; before the first id.
func (m *Manager) setup() {
	m.start.Do(func() {
		ctx := m.port.Context()
		var a provider.DeviceAttr
		m.lim = limits{16, 16, 15}
		if ctx.QueryDevice(&a) == nil {
			m.lim = limits{uint8(min(a.MaxQPRdAtom, 254)), uint8(min(a.MaxQPInitRdAtom, 254)), a.LocalCAAckDelay & 31}
		}
		m.mu.Lock()
		m.mc.guid = uint64(ctx.Info().GUID)
		m.mu.Unlock()
	})
}

// batch is what is to be done once no lock is held.
type batch struct {
	sends bool // something of it is in Manager.queue
	steps []func()
}

// outgoing is a datagram in the order in which the machine made it.
type outgoing struct {
	datagram
	of *batch
}

// locked runs f on the machine and adds to b what comes of it.
func (m *Manager) locked(b *batch, f func(now time.Time)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(time.Now())
	m.collect(b)
}

// collect empties the machine's outbox. It is called with mu held.
func (m *Manager) collect(b *batch) {
	for i := range m.mc.out.notices {
		m.deliver(b, &m.mc.out.notices[i])
	}
	m.enqueue(b)
	clear(m.mc.out.notices)
	m.mc.out.notices = m.mc.out.notices[:0]
	m.rearm()
}

// enqueue puts what the machine sends behind what was sent before. It is called
// with mu held.
func (m *Manager) enqueue(b *batch) {
	for _, d := range m.mc.out.sends {
		m.queue, b.sends = append(m.queue, outgoing{d, b}), true
	}
	m.mc.out.sends = nil
}

func (m *Manager) rearm() {
	at := m.mc.next()
	if at.Equal(m.timerAt) {
		return
	}
	if m.timerAt = at; at.IsZero() || m.closed {
		if m.timer != nil {
			m.timer.Stop()
		}
		m.timerAt = time.Time{}
		return
	}
	d := link.Align(time.Until(at), link.CMWait) // of a virtual network, where no packet arrives
	if m.timer == nil {
		m.timer = time.AfterFunc(d, m.tick)
	} else {
		m.timer.Reset(d)
	}
}

func (m *Manager) tick() {
	_ = m.do(func(now time.Time) {
		m.timerAt = time.Time{}
		if !m.closed {
			m.mc.tick(now)
		}
	})
}

// run does what locked left to do. It gives the first error of a send.
func (m *Manager) run(b *batch) (err error) {
	if b.sends {
		err = m.flush(b)
	}
	for _, f := range b.steps {
		f()
	}
	return err
}

// flush sends what is in the queue, in order: whom an event has told of a
// connection may end it at once, and his DREQ must not overtake the RTU. A
// goroutine that finds another sending leaves its datagrams to that one; an error
// is not seen then, and is like a loss.
func (m *Manager) flush(b *batch) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flushing {
		return nil
	}
	m.flushing = true
	for len(m.queue) > 0 {
		q := m.queue
		m.queue = nil
		m.mu.Unlock()
		for i := range q {
			if e := m.send(&q[i].datagram); e != nil && err == nil && q[i].of == b {
				err = e
			}
		}
		m.mu.Lock()
	}
	m.flushing = false
	return err
}

func (m *Manager) send(d *datagram) error {
	src, ok := own(m.port.Addrs(), d.src)
	if !ok {
		return nil // it was taken from the device meanwhile
	}
	dst := d.dst
	if dst.IsLinkLocalUnicast() {
		dst = dst.WithZone(src.Zone())
	}
	return m.port.SendMAD(src, dst, d.mad[:])
}

func (m *Manager) do(f func(now time.Time)) error {
	var b batch
	m.locked(&b, f)
	return m.run(&b)
}

// HandleMAD takes a management datagram that arrived at QP 1. The device calls
// it without its locks held; mad is used only during the call.
func (m *Manager) HandleMAD(src, dst netip.Addr, mad []byte) {
	if len(mad) < madSize || !src.IsValid() || !dst.IsValid() {
		return
	}
	_ = m.do(func(now time.Time) {
		if !m.closed && !m.gone {
			m.mc.input(now, plain(src), plain(dst), (*[madSize]byte)(mad))
		}
	})
}

// HandleQPEvent tells of an event of a queue pair: EventCommEst, that data came
// on it, establishes a connection whose RTU was lost; others are ignored. It may
// be called for every queue pair.
func (m *Manager) HandleQPEvent(qpn uint32, t provider.EventType) {
	if t != provider.EventCommEst {
		return
	}
	_ = m.do(func(now time.Time) {
		if c := m.mc.waiting[qpn]; c != nil {
			_ = m.mc.arrived(now, c)
		}
	})
}

// DeviceRemoved tells every id of the device that it is gone. Ids stay until
// they are closed; nothing is sent any more.
func (m *Manager) DeviceRemoved() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone || m.closed {
		return
	}
	m.gone = true
	for x := range m.ids {
		if x.device {
			m.push(x, provider.CMEvent{Type: provider.CMEventDeviceRemoval})
		}
	}
	m.forget()
}

// forget drops every connection.
func (m *Manager) forget() {
	for _, c := range m.mc.conns {
		c.owner = nil
		m.mc.free(c)
	}
	m.mc.out = outbox{}
	m.rearm()
}

// Close tells the peers of open connections once, stops every timer and makes
// later calls fail with ENODEV. Ids get no event, but can still be closed.
func (m *Manager) Close() {
	var b batch
	m.mu.Lock()
	if !m.closed && !m.gone {
		m.mc.farewell(time.Now())
		m.enqueue(&b)
	}
	m.closed = true
	m.forget()
	m.mu.Unlock()
	_ = m.run(&b)
	m.pdMu.Lock()
	defer m.pdMu.Unlock()
	if m.pd != nil && m.pd.Close() == nil {
		m.pd = nil
	}
}

// Stats are counts since New.
func (m *Manager) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mc.stats
}

// CreateChannel makes an event channel.
func (m *Manager) CreateChannel() (provider.CMChannel, error) { return newChannel(m), nil }

// CreateID makes an id whose events arrive on ch under cookie.
func (m *Manager) CreateID(ch provider.CMChannel, cookie uint64, ps provider.PortSpace) (provider.CMID, error) {
	c, ok := ch.(*channel)
	if !ok || c.m != m {
		return nil, errInval
	}
	return m.newID(c, cookie, ps)
}

func (m *Manager) newID(ch *channel, cookie uint64, ps provider.PortSpace) (*id, error) {
	if ps != provider.PSTCP && ps != provider.PSUDP {
		return nil, syscall.EPROTONOSUPPORT
	}
	m.setup()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.gone {
		return nil, syscall.ENODEV
	}
	x := &id{m: m, ps: ps, cookie: cookie, known: true, ch: ch}
	m.ids[x] = struct{}{}
	return x, nil
}

// Devices lists the one device there is.
func (m *Manager) Devices() ([]provider.Context, error) {
	return []provider.Context{m.port.Context()}, nil
}

// domain is the protection domain of ids that bring none.
func (m *Manager) domain() (provider.PD, error) {
	m.pdMu.Lock()
	defer m.pdMu.Unlock()
	if m.pd == nil {
		pd, err := m.port.Context().AllocPD()
		if err != nil {
			return nil, err
		}
		m.pd = pd
	}
	return m.pd, nil
}
