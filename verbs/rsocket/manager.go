package rsocket

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/zrdma/zrdma/internal/ibv"
	"github.com/zrdma/zrdma/verbs"
)

// librdmacm watches its connections in one thread and its listeners in another.
// Before the releases in fixedIn, such a thread goes on using the array of its
// sockets after the array had to grow, so the fourth connection of a process
// corrupts the heap. The array starts with room for 3 and grows by 4 whenever
// the thread starts, that is with the first socket, and never shrinks; so the
// threads are started and stopped, before any other use, until there is room.
// Beyond that room New and Accept refuse.
const (
	roomConns     = 1027
	roomListeners = 67
)

// fixedIn is the first fixed minor release of a major one; all from 53 on are.
var fixedIn = map[int]int{44: 7, 45: 6, 46: 5, 47: 4, 48: 3, 49: 3, 50: 2, 51: 2, 52: 1}

// seats counts what one of the library's threads watches.
type seats struct {
	taken, room atomic.Int64
}

var (
	connSeats, listenSeats seats
	readyMu                sync.Mutex
)

// take is false when there is no room left. leave gives the seat back.
func (s *seats) take() bool {
	if s.taken.Add(1) <= s.room.Load() {
		return true
	}
	s.taken.Add(-1)
	return false
}

func (s *seats) leave() { s.taken.Add(-1) }

func init() { // the room that an untouched library has
	connSeats.room.Store(3)
	listenSeats.room.Store(3)
}

func errNoSeat(call, what string, s *seats) error {
	return &verbs.Error{Verb: call, Cause: syscall.EMFILE, Hint: fmt.Sprintf(
		"this librdmacm corrupts memory with more than %d %s in a process: rdma-core 53 does not", s.room.Load(), what)}
}

// ready makes the room before the first connection or listener. at is an RDMA
// address, where connections begin that are closed before anything comes of them.
func ready(at netip.Addr) {
	readyMu.Lock()
	defer readyMu.Unlock()
	const many, born = 1 << 40, 3
	if connSeats.room.Load() > born || connSeats.taken.Load() > 0 {
		return
	}
	maps, _ := os.ReadFile("/proc/self/maps")
	if !affected(string(maps)) {
		connSeats.room.Store(many)
		listenSeats.room.Store(many)
		return
	}
	connSeats.room.Store(max(born, grow(roomConns, at, startConnecting)))
	if listenSeats.taken.Load() == 0 {
		listenSeats.room.Store(max(born, grow(roomListeners, at, startListening)))
	}
}

var soName = regexp.MustCompile(`librdmacm\.so\.1\.\d+\.(\d+)\.(\d+)`)

// affected judges by the file name of the loaded library, and takes one that
// says nothing for an old one.
func affected(maps string) bool {
	m := soName.FindStringSubmatch(maps)
	if m == nil {
		return true
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	first, listed := fixedIn[major]
	return major < 53 && !(listed && minor >= first)
}

// grow starts a thread again and again. A start that fails, as a connect that is
// refused at once does, may not have reached the thread: it counts for nothing
// and is tried again, up to a limit.
func grow(want int64, at netip.Addr, start func(fd int, at netip.Addr) error) (room int64) {
	// One element is the thread's own and one is never used.
	size, failed := int64(4), 0
	for room < want-4 && failed < 256 {
		fd, err := ibv.RSocket(domainOf(at), ibv.SockStream, 0)
		if err != nil {
			return room
		}
		if _, err = ibv.RFcntl(fd, ibv.FSetFl, ibv.ONonblock); err == nil {
			err = start(fd, at)
		}
		ibv.RClose(fd, -1)
		if err != nil {
			failed++
			continue
		}
		room = size - 2
		size += 4
	}
	return room
}

// startConnecting gives the connection thread its first socket.
func startConnecting(fd int, at netip.Addr) error {
	to, err := sockaddr(netip.AddrPortFrom(at, 1), domainOf(at))
	if err != nil {
		return err
	}
	switch err := ibv.RConnect(fd, to); err {
	case syscall.EINPROGRESS:
		return nil
	case nil:
		return syscall.EISCONN
	default:
		return err
	}
}

// startListening gives the listener thread its first socket, on a free port.
func startListening(fd int, at netip.Addr) error {
	any := netip.IPv4Unspecified()
	if domainOf(at) == AFInet6 {
		any = netip.IPv6Unspecified()
	}
	b, err := sockaddr(netip.AddrPortFrom(any, 0), domainOf(at))
	if err != nil {
		return err
	}
	if err := ibv.RBind(fd, b); err != nil {
		return err
	}
	return ibv.RListen(fd, 1)
}
