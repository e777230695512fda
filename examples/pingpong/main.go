// Pingpong bounces a message between two machines over a reliable connection,
// with nothing but package verbs. It speaks the protocol of ibv_rc_pingpong, so
// that program may be the other side:
//
//	pingpong -d rxe0                    # on one machine: the server
//	ibv_rc_pingpong -d rxe0 -g 1 HOST   # on the other: the client
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

type options struct {
	host, dev       string
	tcpPort, ibPort int
	size, mtu       int
	iters, rx       int
	gidIndex        int
	events, check   bool
	patience        time.Duration
}

// Work request ids: the completion of a request carries its id.
const sendID, recvID = 1, 2

// end is our side of the connection.
type end struct {
	options
	qp        *verbs.QP
	cq        *verbs.CQ
	ch        *verbs.CompChannel
	out, in   verbs.SGE // where messages leave from and arrive
	outB, inB []byte    // the same memory, for Go
	me        address
	port      verbs.PortAttr
	sgid      verbs.GIDEntry
	armed     bool
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("pingpong: ")
	var o options
	flag.StringVar(&o.dev, "d", "", "`device`; default: the first one with an active port")
	flag.IntVar(&o.ibPort, "i", 1, "`port` of the device")
	flag.IntVar(&o.tcpPort, "p", 18515, "TCP `port` on which addresses are exchanged")
	flag.IntVar(&o.size, "s", 4096, "`bytes` of a message")
	flag.IntVar(&o.mtu, "m", 1024, "path MTU in `bytes`: 256, 512, 1024, 2048 or 4096")
	flag.IntVar(&o.iters, "n", 1000, "how many round `trips`")
	flag.IntVar(&o.rx, "r", 500, "how many receives are posted at a `time`")
	flag.IntVar(&o.gidIndex, "g", -1, "`index` of the GID; default: one that is an IP address, IPv4 first")
	flag.BoolVar(&o.events, "e", false, "sleep until there are completions; default: poll")
	flag.BoolVar(&o.check, "c", false, "validate what arrives")
	flag.DurationVar(&o.patience, "t", 20*time.Second, "give up after this `time` without progress")
	flag.Parse()
	o.host = flag.Arg(0)
	if o.size < 1 || o.size > 1<<30 || o.iters < 1 || o.rx < 1 || o.ibPort < 1 || o.ibPort > 255 || flag.NArg() > 1 {
		log.Fatal("-s, -n, -r and -i are numbers from 1 on, and there is at most one host")
	}
	if err := run(o); err != nil {
		log.Fatal(err)
	}
}

func run(o options) (err error) {
	// Each object is made from the ones before it and closed before them.
	closing := func(c interface{ Close() error }) { err = errors.Join(err, c.Close()) }
	dev, err := open(o.dev)
	if err != nil {
		return err
	}
	defer closing(dev)
	e := &end{options: o}
	if e.port, err = dev.QueryPort(uint8(o.ibPort)); err != nil {
		return err
	}
	if e.sgid, err = gid(dev, e.port, o); err != nil {
		return err
	}
	pd, err := dev.AllocPD()
	if err != nil {
		return err
	}
	defer closing(pd)
	buf := make([]byte, 2*o.size) // pinned by RegMR until the region is closed
	e.outB, e.inB = buf[:o.size], buf[o.size:]
	mr, err := pd.RegMR(buf, verbs.AccessLocalWrite)
	if err != nil {
		return err
	}
	defer closing(mr)
	e.out, e.in = mr.SGE(0, o.size), mr.SGE(o.size, o.size)
	if e.ch, err = dev.CreateCompChannel(); err != nil {
		return err
	}
	defer closing(e.ch)
	if e.cq, err = dev.CreateCQ(o.rx+1, &verbs.CQConfig{Channel: e.ch}); err != nil {
		return err
	}
	defer closing(e.cq)
	e.qp, err = pd.CreateQP(verbs.QPConfig{SendCQ: e.cq, Cap: verbs.QPCap{MaxSendWR: 1, MaxRecvWR: uint32(o.rx), MaxSendSGE: 1, MaxRecvSGE: 1}})
	if err != nil {
		return err
	}
	defer closing(e.qp)

	// Reset to init: from here on receives can be posted, and they must be there
	// before the peer can send.
	err = e.qp.Modify(verbs.QPAttr{State: verbs.QPSInit, PortNum: uint8(o.ibPort)},
		verbs.QPAttrState|verbs.QPAttrPKeyIndex|verbs.QPAttrPort|verbs.QPAttrAccessFlags)
	if err != nil {
		return err
	}
	if err := e.postReceives(o.rx); err != nil {
		return err
	}
	e.me = address{lid: e.port.LID, qpn: e.qp.QPN(), psn: rand.Uint32() & 0xffffff, gid: e.sgid.GID}
	fmt.Println("local: ", e.me)
	if err := e.meet(); err != nil {
		return err
	}
	start := time.Now()
	if err := e.play(); err != nil {
		return err
	}
	d := time.Since(start)
	n := float64(o.iters)
	fmt.Printf("%d round trips of %d bytes in %.3f s: %.2f us each, %.2f Mbit/s\n",
		o.iters, o.size, d.Seconds(), float64(d.Microseconds())/n, 2*8*n*float64(o.size)/1e6/d.Seconds())
	return nil
}

func open(name string) (*verbs.Context, error) {
	if name == "" {
		return verbs.OpenDefault()
	}
	return verbs.Open(name)
}

// gid finds our address in the port's table.
func gid(dev *verbs.Context, pa verbs.PortAttr, o options) (verbs.GIDEntry, error) {
	switch {
	case o.gidIndex >= 0:
		return dev.QueryGIDEx(uint32(o.ibPort), uint32(o.gidIndex), 0)
	case pa.LinkLayer == verbs.LinkLayerInfiniband:
		return verbs.GIDEntry{}, nil // LIDs will do
	}
	return dev.SelectGID(uint8(o.ibPort), netip.Addr{})
}

// meet exchanges addresses with the peer and connects the queue pair to its.
func (e *end) meet() error {
	if e.host != "" {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(e.host, strconv.Itoa(e.tcpPort)), exchangeTime)
		if err != nil {
			return err
		}
		defer c.Close()
		return asClient(c, e.me, e.connect)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(e.tcpPort)))
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	return asServer(c, e.me, e.connect)
}

// connect moves the queue pair to "ready to receive", which names the peer, and
// to "ready to send".
func (e *end) connect(peer address) error {
	fmt.Println("remote:", peer)
	mtu, ok := map[int]verbs.MTU{256: verbs.MTU256, 512: verbs.MTU512, 1024: verbs.MTU1024, 2048: verbs.MTU2048, 4096: verbs.MTU4096}[e.mtu]
	if !ok || mtu > e.port.ActiveMTU {
		return fmt.Errorf("-m %d: the port's MTU is %v", e.mtu, e.port.ActiveMTU)
	}
	path := verbs.AHAttr{DLID: peer.lid, PortNum: uint8(e.ibPort)}
	if !peer.gid.IsZero() {
		path.IsGlobal = true
		path.GRH = verbs.GlobalRoute{DGID: peer.gid, SGIDIndex: uint8(e.sgid.Index), HopLimit: 64}
	}
	err := e.qp.Modify(verbs.QPAttr{State: verbs.QPSRTR, PathMTU: mtu, DestQPN: peer.qpn, RQPSN: peer.psn, AH: path, MaxDestRdAtomic: 1, MinRNRTimer: 12},
		verbs.QPAttrState|verbs.QPAttrAV|verbs.QPAttrPathMTU|verbs.QPAttrDestQPN|verbs.QPAttrRQPSN|verbs.QPAttrMaxDestRdAtomic|verbs.QPAttrMinRNRTimer)
	if err != nil {
		return err
	}
	// A retry count of 7 would mean for ever on Soft-RoCE.
	return e.qp.Modify(verbs.QPAttr{State: verbs.QPSRTS, SQPSN: e.me.psn, Timeout: 14, RetryCnt: 6, RNRRetry: 7, MaxRdAtomic: 1},
		verbs.QPAttrState|verbs.QPAttrSQPSN|verbs.QPAttrTimeout|verbs.QPAttrRetryCnt|verbs.QPAttrRNRRetry|verbs.QPAttrMaxQPRdAtomic)
}

func (e *end) postReceives(n int) error {
	wrs := make([]verbs.RecvWR, n)
	for i := range wrs {
		// All share one buffer: only one message is ever under way to us.
		wrs[i] = verbs.RecvWR{ID: recvID, SGList: []verbs.SGE{e.in}}
	}
	_, err := e.qp.PostRecv(wrs)
	return err
}
