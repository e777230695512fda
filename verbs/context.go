package verbs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"syscall"
	"weak"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// Attribute structs; see the linked C structs for the meaning of each field.
type (
	GID          = provider.GID
	GUID         = provider.GUID
	GIDEntry     = provider.GIDEntry
	DeviceAttr   = provider.DeviceAttr
	DeviceAttrEx = provider.DeviceAttrEx
	PortAttr     = provider.PortAttr
	AHAttr       = provider.AHAttr
	GlobalRoute  = provider.GlobalRoute
	QPAttr       = provider.QPAttr
	QPCap        = provider.QPCap
	ECE          = provider.ECE
	SRQAttr      = provider.SRQAttr
	LKey         = provider.LKey
	RKey         = provider.RKey
	SGE          = provider.SGE
	WC           = provider.WC
	WCEx         = provider.WCEx
)

// Context is an open device: the root of every other object.
type Context struct {
	h handle.Handle
	p provider.Context

	borrowed bool // the connection manager's: Close leaves it open

	mu   sync.Mutex
	objs map[uint64]any // guarded by mu: cookie to weak pointer, for events
}

func watch[T any](o *T, h *handle.Handle) { handle.Watch(o, h) }

func (c *Context) register(cookie uint64, o any) {
	c.mu.Lock()
	c.objs[cookie] = o
	c.mu.Unlock()
}

func (c *Context) forget(cookie uint64) {
	c.mu.Lock()
	delete(c.objs, cookie)
	c.mu.Unlock()
}

func lookup[T any](c *Context, cookie uint64) *T {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w, ok := c.objs[cookie].(weak.Pointer[T]); ok {
		return w.Value()
	}
	return nil
}

// enter passes the gate and names the verb in the error.
func enter(h *handle.Handle, verb string) error {
	if err := h.Enter(); err != nil {
		return verbClosed(verb)
	}
	return nil
}

type closedVerb struct{ verb string }

func (e closedVerb) Error() string        { return "verbs: " + e.verb + ": " + ErrClosed.Error() }
func (e closedVerb) Is(target error) bool { return target == ErrClosed || target == net.ErrClosed }

func verbClosed(verb string) error { return closedVerb{verb} }

// Name is the name of the device.
func (c *Context) Name() string { return c.p.Info().Name }

// IsSoft reports a software device, one that OpenSoft opens.
func (c *Context) IsSoft() bool { return c.p.Info().Soft }

// SysfsPath is the device's folder in sysfs, empty when it has none.
func (c *Context) SysfsPath() string { return c.p.Info().IBDevPath }

// NumCompVectors is the number of completion vectors.
func (c *Context) NumCompVectors() int { return c.p.NumCompVectors() }

// QueryDevice reads the device's limits.
//
// Verb: ibv_query_device(3).
func (c *Context) QueryDevice() (a DeviceAttr, err error) {
	if err := enter(&c.h, "ibv_query_device"); err != nil {
		return a, err
	}
	defer c.h.Exit()
	return a, verbErr("ibv_query_device", c.p.QueryDevice(&a))
}

// QueryDeviceEx reads the device's extended attributes; what a device does not
// have is zero.
//
// Verb: ibv_query_device_ex(3).
func (c *Context) QueryDeviceEx() (a DeviceAttrEx, err error) {
	if err := enter(&c.h, "ibv_query_device_ex"); err != nil {
		return a, err
	}
	defer c.h.Exit()
	return a, verbErr("ibv_query_device_ex", c.p.QueryDeviceEx(&a))
}

// QueryPort reads the state of a port, counted from 1.
//
// Verb: ibv_query_port(3).
func (c *Context) QueryPort(port uint8) (a PortAttr, err error) {
	if err := enter(&c.h, "ibv_query_port"); err != nil {
		return a, err
	}
	defer c.h.Exit()
	return a, verbErr("ibv_query_port", c.p.QueryPort(port, &a))
}

// QueryGID reads one entry of a port's GID table; an unused slot is an error or zero.
//
// Verb: ibv_query_gid(3).
func (c *Context) QueryGID(port uint8, index int) (g GID, err error) {
	if err := enter(&c.h, "ibv_query_gid"); err != nil {
		return g, err
	}
	defer c.h.Exit()
	if index < 0 || index > math.MaxInt32 {
		return g, verbErr("ibv_query_gid", syscall.EINVAL)
	}
	g, err = c.p.QueryGID(port, index)
	return g, verbErr("ibv_query_gid", err)
}

// QueryGIDEx reads one entry of a port's GID table with its type and netdev.
// flags must be 0.
//
// Verb: ibv_query_gid_ex(3).
func (c *Context) QueryGIDEx(port, index, flags uint32) (e GIDEntry, err error) {
	if err := enter(&c.h, "ibv_query_gid_ex"); err != nil {
		return e, err
	}
	defer c.h.Exit()
	e, err = c.p.QueryGIDEx(port, index, flags)
	return e, verbErr("ibv_query_gid_ex", err)
}

// QueryGIDTable reads the valid GIDs of all ports, at most max; fewer slots than
// GIDs is EINVAL. flags must be 0.
//
// Verb: ibv_query_gid_table(3).
func (c *Context) QueryGIDTable(max int, flags uint32) ([]GIDEntry, error) {
	if err := enter(&c.h, "ibv_query_gid_table"); err != nil {
		return nil, err
	}
	defer c.h.Exit()
	l, err := c.p.QueryGIDTable(max, flags)
	return l, verbErr("ibv_query_gid_table", err)
}

// QueryPKey reads a port's P_Key, in host order.
//
// Verb: ibv_query_pkey(3).
func (c *Context) QueryPKey(port uint8, index int) (uint16, error) {
	if err := enter(&c.h, "ibv_query_pkey"); err != nil {
		return 0, err
	}
	defer c.h.Exit()
	if index < 0 || index > math.MaxInt32 {
		return 0, verbErr("ibv_query_pkey", syscall.EINVAL)
	}
	k, err := c.p.QueryPKey(port, index)
	return k, verbErr("ibv_query_pkey", err)
}

// PKeyIndex finds a P_Key in a port's table.
//
// Verb: ibv_get_pkey_index(3).
func (c *Context) PKeyIndex(port uint8, pkey uint16) (int, error) {
	if err := enter(&c.h, "ibv_get_pkey_index"); err != nil {
		return 0, err
	}
	defer c.h.Exit()
	i, err := c.p.PKeyIndex(port, pkey)
	return i, verbErr("ibv_get_pkey_index", err)
}

// InitAHFromWC gives the address of the sender of a UD message: wc is its
// completion, grh the first 40 bytes of the receive buffer.
//
// Verb: ibv_init_ah_from_wc(3).
func (c *Context) InitAHFromWC(port uint8, wc *WC, grh *[40]byte) (a AHAttr, err error) {
	if err := enter(&c.h, "ibv_init_ah_from_wc"); err != nil {
		return a, err
	}
	defer c.h.Exit()
	a, err = c.p.InitAHFromWC(port, wc, grh)
	return a, verbErr("ibv_init_ah_from_wc", err)
}

// ResolveEthL2FromGID finds the Ethernet address and VLAN (0xffff for none)
// behind a path.
//
// Verb: ibv_resolve_eth_l2_from_gid(3).
func (c *Context) ResolveEthL2FromGID(a *AHAttr) (net.HardwareAddr, uint16, error) {
	if err := enter(&c.h, "ibv_resolve_eth_l2_from_gid"); err != nil {
		return nil, 0, err
	}
	defer c.h.Exit()
	mac, vid, err := c.p.ResolveEthL2(a)
	if err != nil {
		return nil, 0, verbErr("ibv_resolve_eth_l2_from_gid", err)
	}
	return net.HardwareAddr(mac[:]), vid, nil
}

// ActivePort is the first port that is active. The error names every port's state.
func (c *Context) ActivePort() (uint8, error) {
	a, err := c.QueryDevice()
	if err != nil {
		return 0, err
	}
	var states []string
	for port := uint8(1); port <= a.PhysPortCnt; port++ {
		pa, err := c.QueryPort(port)
		if err != nil {
			return 0, err
		}
		if pa.State == PortActive {
			return port, nil
		}
		states = append(states, fmt.Sprintf("port %d is %v", port, pa.State))
	}
	return 0, fmt.Errorf("verbs: %s has no active port: %s; bring its netdev up (ip link set DEV up) and check the cable: %w", c.Name(), strings.Join(states, ", "), syscall.ENETDOWN)
}

// AsyncEvent is an event of the device, a port or one object. At most one of
// the object fields is set; an object that was closed meanwhile is nil.
type AsyncEvent struct {
	Type EventType
	Port uint8
	QP   *QP
	CQ   *CQ
	SRQ  *SRQ
	Obj  any // an object of another kind, for instance a WQ
}

// GetAsyncEvent waits for an asynchronous event. It parks in the network
// poller and holds no thread; the event is acknowledged before it is returned,
// so Close of its object never waits.
//
// Verb: ibv_get_async_event(3), ibv_ack_async_event(3).
func (c *Context) GetAsyncEvent(ctx context.Context) (AsyncEvent, error) {
	if c.h.Closed() {
		return AsyncEvent{}, verbClosed("ibv_get_async_event")
	}
	e, err := c.p.GetEvent(ctx)
	if err != nil {
		if errors.Is(err, syscall.ECANCELED) {
			return AsyncEvent{}, verbClosed("ibv_get_async_event")
		}
		return AsyncEvent{}, verbErr("ibv_get_async_event", err)
	}
	out := AsyncEvent{Type: e.Type, Port: uint8(e.Port)}
	if e.Cookie != 0 {
		if out.QP = lookup[QP](c, e.Cookie); out.QP == nil {
			if out.CQ = lookup[CQ](c, e.Cookie); out.CQ == nil {
				if out.SRQ = lookup[SRQ](c, e.Cookie); out.SRQ == nil {
					out.Obj = c.lookupOther(e.Cookie)
				}
			}
		}
	}
	return out, nil
}

// Close closes the device. It fails with ErrInUse while objects made from it are
// open, and makes a pending GetAsyncEvent return ErrClosed.
//
// A context that came from the connection manager is shared by all its ids and
// stays open; its Close is nil.
//
// Verb: ibv_close_device(3).
func (c *Context) Close() error {
	if c.borrowed {
		return nil
	}
	return verbErr("ibv_close_device", c.h.Close(func() error {
		c.p.Interrupt()
		return c.p.Close()
	}))
}
