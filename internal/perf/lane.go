package perf

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/verbs"
)

// lane is what one thread works with: a completion queue and queue pairs. One
// goroutine uses it, but for the atomics.
type lane struct {
	c     *Case
	pd    *verbs.PD
	ch    *verbs.CompChannel // nil: polling
	cq    *verbs.CQ
	links []*link
	byQPN map[uint32]*link
	wc    [pollBatch]verbs.WC
	hist  *hdrhistogram.Histogram // nanoseconds

	sent, received atomic.Int64 // messages that completed
}

// pollBatch is how many completions are taken at a time.
const pollBatch = 16

// link is a queue pair with its memory: first what is sent or fetched, then, at a
// page, what the peer may write and read, and receives go into.
type link struct {
	qp   *verbs.QP
	mem  []byte
	mr   *verbs.MR
	psn  uint32
	peer wend
	room int // bytes of either half of mem
	rx   int // receives that are posted at a time

	posted, done int // requests
	owed         int // receives that completed and were not posted again
	sends        []verbs.SendWR
	recvs        []verbs.RecvWR
	stamps       []time.Time // of the signalled requests under way, oldest first, as a ring
	first, under int         // of stamps
}

const access = verbs.AccessLocalWrite | verbs.AccessRemoteWrite | verbs.AccessRemoteRead | verbs.AccessRemoteAtomic

// sendBit is set in the id of a send; the rest is how many were posted by then.
const sendBit = 1 << 63

// spare are work requests beyond the depth: an answer is posted when its message
// has come, which may be before the last answer has completed.
const spare = 8

// group are the lanes of a case on one end.
type group struct {
	dev   *endpoint.Device
	c     Case
	gid   verbs.GIDEntry
	pd    *verbs.PD
	lanes []*lane
}

func newGroup(dev *endpoint.Device, c Case, gid verbs.GIDEntry) (_ *group, err error) {
	g := &group{dev: dev, c: c, gid: gid}
	defer func() {
		if err != nil {
			err = endpoint.Step("resources", errors.Join(err, g.close()))
		}
	}()
	if g.pd, err = dev.Context().AllocPD(); err != nil {
		return g, err
	}
	for i := range c.Threads {
		n := (c.QPs + c.Threads - 1 - i) / c.Threads
		l := &lane{c: &g.c, pd: g.pd, byQPN: map[uint32]*link{}, hist: newHistogram()}
		g.lanes = append(g.lanes, l)
		if err := l.open(dev, n); err != nil {
			return g, err
		}
	}
	return g, nil
}

// newHistogram takes 1 ns to a minute, with three digits.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(time.Minute), 3) }

func (l *lane) open(dev *endpoint.Device, qps int) (err error) {
	cfg := &verbs.CQConfig{}
	if l.c.Wait == Events {
		if l.ch, err = dev.Context().CreateCompChannel(); err != nil {
			return err
		}
		cfg.Channel = l.ch
	}
	rx := 0
	if l.c.Op.receives() {
		rx = max(2*l.c.Depth, 512/qps, 8)
	}
	a, err := dev.Context().QueryDevice()
	if err != nil {
		return err
	}
	if n := int(a.MaxQPWR); l.c.Depth+spare > n {
		return fmt.Errorf("a depth of %d: %s takes %d work requests on a queue", l.c.Depth, dev.Name(), n-spare)
	} else if rx > n {
		rx = n
	}
	if l.cq, err = dev.Context().CreateCQ(qps*(l.c.Depth+spare+rx), cfg); err != nil {
		return err
	}
	for range qps {
		k := &link{psn: rand.Uint32() & 0xffffff, rx: rx}
		l.links = append(l.links, k)
		if err := l.openLink(dev, k); err != nil {
			return err
		}
	}
	return nil
}

func (l *lane) openLink(dev *endpoint.Device, k *link) (err error) {
	page := unix.Getpagesize()
	k.room = (l.c.Size + page - 1) / page * page
	if k.mem, err = unix.Mmap(-1, 0, 2*k.room, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON); err != nil {
		return fmt.Errorf("%d bytes of memory: %w", 2*k.room, err)
	}
	if k.mr, err = l.pd.RegMR(k.mem, access); err != nil {
		return err
	}
	k.qp, err = l.pd.CreateQP(verbs.QPConfig{SendCQ: l.cq,
		Cap: verbs.QPCap{MaxSendWR: uint32(l.c.Depth + spare), MaxRecvWR: uint32(max(k.rx, 1)), MaxSendSGE: 1, MaxRecvSGE: 1}})
	if err != nil {
		return err
	}
	l.byQPN[k.qp.QPN()] = k
	if err := dev.Init(k.qp, access); err != nil {
		return err
	}
	k.recvs = make([]verbs.RecvWR, k.rx)
	for i := range k.recvs {
		k.recvs[i].SGList = []verbs.SGE{k.mr.SGE(k.room, l.c.Size)}
	}
	k.stamps = make([]time.Time, l.c.Depth+1)
	k.owed = k.rx
	return k.postRecvs()
}

// postRecvs posts the receives that are owed.
func (k *link) postRecvs() error {
	if k.owed == 0 {
		return nil
	}
	n, err := k.qp.PostRecv(k.recvs[:k.owed])
	k.owed -= n
	return err
}

func (g *group) close() error {
	var errs []error
	keep := func(err error) { errs = append(errs, err) }
	for _, l := range g.lanes {
		for _, k := range l.links {
			if k.qp != nil {
				keep(k.qp.Close())
			}
		}
		if l.cq != nil {
			keep(l.cq.Close())
		}
		if l.ch != nil {
			keep(l.ch.Close())
		}
		for _, k := range l.links {
			if k.mr != nil {
				if err := k.mr.Close(); err != nil {
					keep(err)
					continue // a device that may still touch it keeps the memory
				}
			}
			if k.mem != nil {
				keep(unix.Munmap(k.mem))
			}
		}
	}
	if g.pd != nil {
		keep(g.pd.Close())
	}
	return errors.Join(errs...)
}

// ends describes the queue pairs for the peer, lane by lane.
func (g *group) ends() []wend {
	var out []wend
	a := g.dev.Attr()
	for _, l := range g.lanes {
		for _, k := range l.links {
			out = append(out, wend{
				Peer: endpoint.Peer{QPN: k.qp.QPN(), PSN: k.psn, LID: a.LID, GID: g.gid.GID, MTU: a.ActiveMTU},
				Addr: k.mr.Addr() + uint64(k.room), RKey: uint32(k.mr.RKey()),
			})
		}
	}
	return out
}

// connect connects the queue pairs with the peer's, in the order of ends.
func (g *group) connect(ends []wend) error {
	a, err := g.dev.Context().QueryDevice()
	if err != nil {
		return err
	}
	bulk := endpoint.Patient
	bulk.RNRRetries = 7 // a receiver that is slow is waited for; one that is gone closes the TCP connection
	bulk.Reads = uint8(max(1, min(a.MaxQPRdAtom, a.MaxQPInitRdAtom, 16)))
	i := 0
	for _, l := range g.lanes {
		for _, k := range l.links {
			if i == len(ends) {
				break
			}
			k.peer = ends[i]
			i++
			mtu := min(g.dev.Attr().ActiveMTU, k.peer.MTU)
			if err := g.dev.Connect(k.qp, g.gid, k.psn, mtu, k.peer.Peer, bulk); err != nil {
				return err
			}
			l.prepare(k)
		}
	}
	if i != len(ends) || i != g.c.QPs {
		return &PeerError{fmt.Sprintf("the peer has %d queue pairs, this end %d", len(ends), g.c.QPs)}
	}
	return nil
}

// prepare makes the requests of a batch.
func (l *lane) prepare(k *link) {
	w := verbs.SendWR{SGList: []verbs.SGE{k.mr.SGE(0, l.c.Size)}}
	switch l.c.Op {
	case Send:
		w.Opcode = verbs.WRSend
	case Write:
		w.Opcode = verbs.WRRDMAWrite
	case WriteImm:
		w.Opcode = verbs.WRRDMAWriteWithImm
	case Read:
		w.Opcode = verbs.WRRDMARead
	case CAS:
		w.Opcode = verbs.WRAtomicCmpAndSwp
	case FetchAdd:
		w.Opcode, w.CompareAdd = verbs.WRAtomicFetchAndAdd, 1
	}
	if l.c.Op != Send {
		w.RemoteAddr, w.RKey = k.peer.Addr, verbs.RKey(k.peer.RKey)
	}
	k.sends = make([]verbs.SendWR, l.c.Batch)
	for i := range k.sends {
		k.sends[i] = w
	}
}

// wait takes at least one completion.
func (l *lane) wait(ctx context.Context) (int, error) {
	if l.ch != nil {
		return l.cq.Wait(ctx, l.wc[:], verbs.SpinAdaptive)
	}
	for {
		n, err := l.cq.PollSpin(l.wc[:], spinNS)
		if n > 0 || err != nil {
			return n, err
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
}

const spinNS = 1_000_000 // of a call; the context is looked at between calls
