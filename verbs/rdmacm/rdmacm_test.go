package rdmacm

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

func TestPrivateDataLimits(t *testing.T) {
	for _, c := range []struct {
		ps   PortSpace
		m    message
		want int
	}{
		{PSTCP, msgConnect, 56}, {PSTCP, msgAccept, 196}, {PSTCP, msgReject, 148},
		{PSUDP, msgConnect, 180}, {PSUDP, msgAccept, 136}, {PSUDP, msgReject, 136},
		{PSIPoIB, msgConnect, 180}, {PSIB, msgConnect, 92},
	} {
		require.Equal(t, c.want, limit(c.ps, c.m), "%v %d", c.ps, c.m)
		_, err := ConnParam{PrivateData: make([]byte, c.want)}.toProvider("rdma_connect", limit(c.ps, c.m))
		require.NoError(t, err)
		_, err = ConnParam{PrivateData: make([]byte, c.want+1)}.toProvider("rdma_connect", limit(c.ps, c.m))
		require.ErrorIs(t, err, syscall.EINVAL)
		require.ErrorContains(t, err, "private data")
	}
}

// Every field of ConnParam is either given a default here or known to need none:
// a new one fails until someone has decided.
func TestConnParamDefaults(t *testing.T) {
	want := map[string]uint64{"ResponderResources": 0xff, "InitiatorDepth": 0xff, "RetryCount": 6, "RNRRetryCount": 7}
	none := map[string]bool{"PrivateData": true, "FlowControl": true, "SRQ": true, "QPN": true}
	v := reflect.ValueOf(ConnParam{}.withDefaults())
	e := reflect.ValueOf(ConnParam{ResponderResources: Explicit, InitiatorDepth: Explicit, RetryCount: Explicit, RNRRetryCount: Explicit}.withDefaults())
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if w, ok := want[name]; ok {
			require.Equal(t, w, v.Field(i).Uint(), name)
			require.Zero(t, e.Field(i).Uint(), "%s: Explicit", name)
		} else {
			require.True(t, none[name], "%s has neither a default nor an exemption", name)
			require.True(t, v.Field(i).IsZero(), name)
		}
	}
	for _, bad := range []ConnParam{{RetryCount: 8}, {RNRRetryCount: 8}, {QPN: 1 << 24}} {
		_, err := bad.toProvider("rdma_connect", 56)
		require.ErrorIs(t, err, syscall.EINVAL)
	}
	p, err := ConnParam{RetryCount: 7, FlowControl: true, SRQ: true, QPN: 5, PrivateData: []byte{1}}.toProvider("rdma_connect", 56)
	require.NoError(t, err)
	require.True(t, p.RetryCount == 7 && p.FlowControl && p.SRQ && p.QPN == 5 && len(p.Private) == 1)
}

func TestConfigDefaults(t *testing.T) {
	d := DialConfig{}.withDefaults()
	require.Equal(t, 2*time.Second, d.AddrTimeout)
	require.Equal(t, 2*time.Second, d.RouteTimeout)
	require.Equal(t, time.Second, DialConfig{AddrTimeout: time.Second}.withDefaults().AddrTimeout)
	l := ListenConfig{}.withDefaults()
	require.Equal(t, 10*time.Second, l.HandshakeTimeout)
	require.NotNil(t, l.OnError)
	covered := map[string]bool{}
	for _, f := range strings.Fields("Local Device PD QP Conn AddrTimeout RouteTimeout TOS AckTimeout Setup Backlog ReuseAddr AFOnly HandshakeTimeout Request Configure Finish OnError") {
		covered[f] = true
	}
	for _, c := range []any{d, l} {
		for i := range reflect.TypeOf(c).NumField() {
			name := reflect.TypeOf(c).Field(i).Name
			require.True(t, covered[name], "%T.%s: decide its default and name it here", c, name)
		}
	}
	q := qpDefaults(verbs.QPConfig{})
	require.Equal(t, verbs.QPCap{MaxSendWR: 64, MaxRecvWR: 64, MaxSendSGE: 1, MaxRecvSGE: 1}, q.Cap)
	q = qpDefaults(verbs.QPConfig{SRQ: &verbs.SRQ{}, Cap: verbs.QPCap{MaxSendWR: 3}})
	require.Equal(t, verbs.QPCap{MaxSendWR: 3, MaxSendSGE: 1}, q.Cap)
}

func TestConnectError(t *testing.T) {
	peer := netip.MustParseAddrPort("10.0.0.1:7")
	for _, c := range []struct {
		e     Event
		step  Step
		cause error
		says  string
	}{
		{Event{Type: EventRejected, Status: 8}, StepConnect, syscall.ECONNREFUSED, "nobody listens"},
		{Event{Type: EventRejected, Status: 28}, StepConnect, syscall.ECONNREFUSED, "application there refused"},
		{Event{Type: EventRejected, Status: 99}, StepConnect, syscall.ECONNREFUSED, "reason 99"},
		{Event{Type: EventUnreachable, Status: -110}, StepConnect, syscall.ETIMEDOUT, "4791"},
		{Event{Type: EventAddrError, Status: -19}, StepAddress, syscall.ENODEV, "rdma link"},
		{Event{Type: EventAddrError, Status: -110}, StepAddress, syscall.ETIMEDOUT, "no host answers"},
		{Event{Type: EventRouteError, Status: -22}, StepRoute, syscall.EINVAL, "resolving the route 10.0.0.1:7"},
		{Event{Type: EventConnectError}, StepConnect, syscall.EIO, "CONNECT_ERROR"},
		{Event{Type: EventDeviceRemoval}, StepConnect, syscall.ENODEV, "DEVICE_REMOVAL"},
	} {
		err := eventErr(&c.e, c.step, peer)
		require.ErrorIs(t, err, c.cause)
		require.ErrorContains(t, err, c.says)
		require.ErrorContains(t, err, peer.String())
	}
	for _, ok := range []EventType{EventAddrResolved, EventEstablished, EventConnectRequest, EventTimewaitExit, EventMulticastJoin} {
		require.NoError(t, eventErr(&Event{Type: ok}, StepConnect, peer), ok)
	}
}

// On a machine without the kernel module, who asked for a kernel device is told
// what to load; with it the channel works.
func TestWithoutModule(t *testing.T) {
	t.Setenv(verbs.EnvDevice, "rxe0")
	ch, err := CreateEventChannel()
	if err == nil {
		require.NoError(t, ch.Close())
		require.NoError(t, ch.Close())
		_, err = ch.CreateID(PSTCP)
		require.ErrorIs(t, err, ErrClosed)
		_, err = ch.Get(context.Background())
		require.ErrorIs(t, err, ErrClosed)
		return
	}
	if _, statErr := os.Stat("/sys/class/misc/rdma_cm"); errors.Is(statErr, fs.ErrNotExist) && !errors.Is(err, errors.ErrUnsupported) {
		require.ErrorContains(t, err, "modprobe rdma_ucm")
	}
	_, err = Dial(context.Background(), netip.MustParseAddrPort("127.0.0.1:1"), DialConfig{})
	require.Error(t, err)
	_, err = Listen(context.Background(), netip.MustParseAddrPort("127.0.0.1:1"), ListenConfig{})
	require.Error(t, err)
}

func TestArguments(t *testing.T) {
	_, err := millis("rdma_resolve_addr", 0)
	require.ErrorIs(t, err, syscall.EINVAL)
	ms, err := millis("rdma_resolve_addr", 1500*time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, 1500, ms)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = Dial(ctx, netip.MustParseAddrPort("127.0.0.1:1"), DialConfig{})
	require.ErrorIs(t, err, context.Canceled)
	_, err = Dial(context.Background(), netip.MustParseAddrPort("127.0.0.1:1"), DialConfig{Conn: ConnParam{PrivateData: make([]byte, 57)}})
	require.ErrorIs(t, err, syscall.EINVAL)
	require.Error(t, newer("rdma_write_cm_event", syscall.EOPNOTSUPP))
	require.ErrorIs(t, newer("rdma_write_cm_event", syscall.EOPNOTSUPP), errors.ErrUnsupported)
	require.ErrorContains(t, newer("rdma_write_cm_event", syscall.EOPNOTSUPP), "rdma-core 60")
}
