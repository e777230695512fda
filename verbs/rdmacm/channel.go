package rdmacm

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"weak"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/ibv"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/verbs"
)

// EventChannel delivers the events of the IDs created on it or migrated to it.
type EventChannel struct {
	h   handle.Handle
	m   provider.CM
	p   provider.CMChannel
	dev *verbs.Context // that the channel was made on, or nil
	ids atomic.Int32   // open IDs
}

// CreateEventChannel makes an event channel of the kernel's connection manager,
// which knows all its devices, or of a software device's: when ZRDMA_DEVICE names
// one, and soft:127.0.0.1 when it is not set and this machine has no kernel device
// or no rdma_cm; the log says so.
//
// Verb: rdma_create_event_channel(3).
func CreateEventChannel() (*EventChannel, error) {
	m, err := manager("rdma_create_event_channel")
	if err != nil {
		return nil, err
	}
	return newChannel(m, nil)
}

// CreateEventChannelOn makes an event channel of the connection manager that
// serves dev: that of a software device serves it alone, whatever ZRDMA_DEVICE
// says. dev stays open meanwhile: its Close is ErrInUse.
//
// Verb: rdma_create_event_channel(3).
func CreateEventChannelOn(dev *verbs.Context) (*EventChannel, error) {
	const verb = "rdma_create_event_channel"
	if dev == nil {
		return nil, invalid(verb, "a device is required")
	}
	m, err := managerOf(verb, dev)
	if err != nil {
		return nil, err
	}
	return newChannel(m, dev)
}

// channelOn makes a channel for what was configured with a device or nil.
func channelOn(dev *verbs.Context) (*EventChannel, error) {
	if dev == nil {
		return CreateEventChannel()
	}
	return CreateEventChannelOn(dev)
}

func newChannel(m provider.CM, dev *verbs.Context) (*EventChannel, error) {
	const verb = "rdma_create_event_channel"
	ch := &EventChannel{m: m, dev: dev}
	var parent *handle.Handle
	if dev != nil {
		parent = bridge.Handle(dev)
	}
	if err := ch.h.Init("rdmacm.EventChannel", parent); err != nil {
		return nil, cmErr(verb, err)
	}
	var err error
	if ch.p, err = m.CreateChannel(); err != nil {
		ch.h.Abandon()
		hint := ""
		if noModule(err) {
			hint = hintModule
		}
		return nil, hinted(verb, err, hint)
	}
	handle.Watch(ch, &ch.h)
	return ch, nil
}

// live finds IDs by the cookie in their events. A cookie is never used twice, so
// an event of a destroyed ID finds nothing.
var live struct {
	sync.Mutex
	m map[uint64]weak.Pointer[ID] // guarded by the mutex
}

func findID(cookie uint64) *ID {
	live.Lock()
	defer live.Unlock()
	return live.m[cookie].Value()
}

// Event is an event of an ID, acknowledged already.
type Event struct {
	Type EventType
	// ID is what the event is about. With EventConnectRequest it is new and the
	// receiver's: Accept, Reject or Close it.
	ID          *ID
	Listener    *ID    // of EventConnectRequest
	Status      int    // 0, minus an errno or, with EventRejected, a RejectReason
	PrivateData []byte // the peer's, zero padded; a copy

	ResponderResources uint8 // what the peer offers to serve
	InitiatorDepth     uint8 // what the peer wants to have outstanding
	FlowControl        bool
	RetryCount         uint8
	RNRRetryCount      uint8
	SRQ                bool
	QPN                uint32 // the peer's queue pair, in any port space

	AH   verbs.AHAttr // datagrams: how to reach the peer or the group
	QKey uint32       // datagrams

	Group netip.AddrPort // of a multicast event
	Arg   uint64         // of EventUser
}

// Err is what an event of failure stands for: a *ConnectError, or nil.
func (e *Event) Err() error {
	step := StepConnect
	switch e.Type {
	case EventAddrError:
		step = StepAddress
	case EventRouteError:
		step = StepRoute
	}
	return eventErr(e, step, e.ID.PeerAddr())
}

// Get waits for an event. The waiter is parked in the network poller and holds
// no thread. Close makes it return ErrClosed.
//
// Verb: rdma_get_cm_event(3), rdma_ack_cm_event(3).
func (ch *EventChannel) Get(ctx context.Context) (*Event, error) {
	for {
		if ch.h.Closed() {
			return nil, closed("rdma_get_cm_event")
		}
		pe, err := ch.p.Get(ctx, bridge.Cookie)
		if err != nil {
			return nil, cmErr("rdma_get_cm_event", err)
		}
		if e := ch.event(&pe); e != nil {
			return e, nil
		}
	}
}

// TryGet is Get without waiting: syscall.EAGAIN when there is no event.
//
// Verb: rdma_get_cm_event(3), rdma_ack_cm_event(3).
func (ch *EventChannel) TryGet() (*Event, error) {
	for {
		if err := ch.h.Enter(); err != nil {
			return nil, closed("rdma_get_cm_event")
		}
		pe, err := ch.p.TryGet(bridge.Cookie)
		ch.h.Exit()
		if err != nil {
			return nil, cmErr("rdma_get_cm_event", err)
		}
		if e := ch.event(&pe); e != nil {
			return e, nil
		}
	}
}

// event is nil for one of an ID that was closed meanwhile. A request of such a
// listener is closed with it.
func (ch *EventChannel) event(pe *provider.CMEvent) *Event {
	id := findID(pe.Cookie)
	if pe.New != nil {
		if id == nil {
			pe.New.Close()
			return nil
		}
		x, err := ch.adopt(pe.New, pe.NewCookie)
		if err != nil {
			return nil
		}
		e := newEvent(pe, x)
		e.Listener = id
		return e
	}
	if id == nil {
		return nil
	}
	if pe.Type == EventEstablished {
		id.established()
	}
	return newEvent(pe, id)
}

func newEvent(pe *provider.CMEvent, id *ID) *Event {
	e := &Event{
		Type: pe.Type, ID: id, Status: int(pe.Status), Arg: pe.Arg,
		PrivateData:        pe.Conn.Private,
		ResponderResources: pe.Conn.ResponderResources, InitiatorDepth: pe.Conn.InitiatorDepth,
		FlowControl: pe.Conn.FlowControl, RetryCount: pe.Conn.RetryCount, RNRRetryCount: pe.Conn.RNRRetryCount,
		SRQ: pe.Conn.SRQ, QPN: pe.Conn.QPN,
	}
	if id.datagram() {
		e.AH, e.QPN, e.QKey = pe.UD.AH, pe.UD.QPN, pe.UD.QKey
	}
	if pe.Group != 0 {
		e.Group = id.group(pe.Group)
	}
	return e
}

// Close frees the channel: ErrInUse while IDs are on it. A pending Get returns
// ErrClosed.
//
// Verb: rdma_destroy_event_channel(3).
func (ch *EventChannel) Close() error {
	return cmErr("rdma_destroy_event_channel", ch.h.Close(func() error {
		if n := ch.ids.Load(); n > 0 {
			return inUse("EventChannel", int(n), "ID")
		}
		ch.p.Interrupt()
		return ch.p.Close()
	}))
}

// EventStr is librdmacm's text for an event; the name of the constant is
// Type.String().
//
// Verb: rdma_event_str(3).
func EventStr(t EventType) string { return ibv.CMEventStr(t) }

// SetErrno passes an errno through librdmacm's convention of -1 and errno and
// returns what a caller of the library would see: nil for 0.
//
// Verb: rdma_seterrno(3).
func SetErrno(e syscall.Errno) error { return ibv.CMSetErrno(e) }
