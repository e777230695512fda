package verbs

import (
	"context"
	"errors"
	"math"
	"syscall"
	"weak"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// CompChannel delivers completion events of the CQs created on it.
type CompChannel struct {
	h handle.Handle
	c *Context
	p provider.CompChannel

	// lead is held around p.Get, so that a Kick always reaches the one it is for.
	lead chan struct{}
}

// CreateCompChannel makes a completion channel.
//
// Verb: ibv_create_comp_channel(3).
func (c *Context) CreateCompChannel() (*CompChannel, error) {
	p, err := create(&c.h, "ibv_create_comp_channel", c.p.CreateCompChannel)
	if err != nil {
		return nil, err
	}
	ch := &CompChannel{c: c, p: p, lead: make(chan struct{}, 1)}
	if err := ch.h.Init("verbs.CompChannel", &c.h); err != nil {
		p.Close()
		return nil, verbErr("ibv_create_comp_channel", err)
	}
	watch(ch, &ch.h)
	return ch, nil
}

// Get waits for a completion event and returns its CQ, which is nil when it was
// closed meanwhile. The waiter is parked in the network poller and holds no
// thread. The event is acknowledged before it is returned. To lose no
// completion: poll until empty, ReqNotify, poll again, and only then Get.
//
// Verb: ibv_get_cq_event(3), ibv_ack_cq_events(3).
func (ch *CompChannel) Get(ctx context.Context) (*CQ, error) {
	if ch.h.Closed() {
		return nil, verbClosed("ibv_get_cq_event")
	}
	for {
		select {
		case ch.lead <- struct{}{}:
		default:
			select {
			case ch.lead <- struct{}{}:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		cookie, err := ch.p.Get(ctx)
		<-ch.lead
		if err == syscall.EAGAIN {
			continue // the kick of a CQ that closed, for a Wait on it
		}
		return ch.event(cookie, err)
	}
}

// TryGet is Get without waiting: syscall.EAGAIN when there is no event.
//
// Verb: ibv_get_cq_event(3), ibv_ack_cq_events(3).
func (ch *CompChannel) TryGet() (*CQ, error) {
	if err := enter(&ch.h, "ibv_get_cq_event"); err != nil {
		return nil, err
	}
	defer ch.h.Exit()
	return ch.event(ch.p.TryGet())
}

func (ch *CompChannel) event(cookie uint64, err error) (*CQ, error) {
	if err != nil {
		if errors.Is(err, syscall.ECANCELED) {
			return nil, verbClosed("ibv_get_cq_event")
		}
		return nil, verbErr("ibv_get_cq_event", err)
	}
	q := lookup[CQ](ch.c, cookie)
	if q != nil {
		q.signal()
	}
	return q, nil
}

// Close frees the channel: ErrInUse while a CQ uses it. A pending Get returns ErrClosed.
//
// Verb: ibv_destroy_comp_channel(3).
func (ch *CompChannel) Close() error {
	return verbErr("ibv_destroy_comp_channel", ch.h.Close(func() error {
		ch.p.Interrupt()
		return ch.p.Close()
	}))
}

// CQConfig describes a completion queue. Any field beside the first three makes
// it an extended one.
type CQConfig struct {
	Channel      *CompChannel  // nil: no events
	Vector       int           // completion vector, below Context.NumCompVectors
	Extended     bool          // allow PollEx
	WCFlags      WCExFlags     // fields that PollEx fills beside WRID, Status, Opcode, VendorErr, Flags; 0: byte length, immediate, QP numbers
	Flags        CQCreateFlags // 0: none
	ParentDomain *PD           // nil: none
}

// CQ is a completion queue. It may be polled from several goroutines; one is
// fastest.
type CQ struct {
	h      handle.Handle
	c      *Context
	p      provider.CQ
	ch     *CompChannel
	cookie uint64
	wait   waitState
}

// CreateCQ makes a completion queue of at least cqe entries.
//
// Verb: ibv_create_cq(3), ibv_create_cq_ex(3), ibv_cq_ex_to_cq(3).
func (c *Context) CreateCQ(cqe int, cfg *CQConfig) (*CQ, error) {
	if cfg == nil {
		cfg = &CQConfig{}
	}
	in := provider.CQInit{CQE: cqe, Cookie: newCookie(), Vector: cfg.Vector, WCFlags: cfg.WCFlags, Flags: cfg.Flags}
	in.Ex = cfg.Extended || cfg.WCFlags != 0 || cfg.Flags != 0 || cfg.ParentDomain != nil
	verb := "ibv_create_cq"
	if in.Ex {
		verb = "ibv_create_cq_ex"
		if in.WCFlags == 0 {
			in.WCFlags = WCExWithByteLen | WCExWithImm | WCExWithQPNum | WCExWithSrcQP
		}
	}
	parents := []*handle.Handle{&c.h}
	if cfg.Channel != nil {
		in.Channel = cfg.Channel.p
		parents = append(parents, &cfg.Channel.h)
	}
	if cfg.ParentDomain != nil {
		in.PD = cfg.ParentDomain.p
		parents = append(parents, &cfg.ParentDomain.h)
	}
	if cqe < 1 || cqe > math.MaxInt32 {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "a completion queue needs at least one entry, and at most DeviceAttr.MaxCQE"}
	}
	if cfg.Vector < 0 || cfg.Vector > math.MaxInt32 {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "CQConfig.Vector must be below Context.NumCompVectors"}
	}
	q := &CQ{c: c, ch: cfg.Channel, cookie: in.Cookie}
	if err := q.h.Init("verbs.CQ", parents...); err != nil {
		return nil, verbErr(verb, err)
	}
	p, err := c.p.CreateCQ(&in)
	if err != nil {
		q.h.Abandon()
		return nil, verbErr(verb, err)
	}
	q.p = p
	q.wait.init()
	c.register(q.cookie, weak.Make(q))
	watch(q, &q.h)
	return q, nil
}

// CQE is the capacity, at least what was asked for.
func (q *CQ) CQE() int { return q.p.CQE() }

// Channel is the completion channel, or nil.
func (q *CQ) Channel() *CompChannel { return q.ch }

// Poll takes completions without waiting and returns how many; 0 when there are
// none. It allocates nothing.
//
// Verb: ibv_poll_cq(3).
func (q *CQ) Poll(wc []WC) (int, error) {
	if q.h.Enter() != nil {
		return 0, verbClosed("ibv_poll_cq")
	}
	n, err := q.p.Poll(wc)
	q.h.Exit()
	if err != nil {
		return n, verbErr("ibv_poll_cq", err)
	}
	return n, nil
}

// PollEx takes extended completions, as one batch between ibv_start_poll and
// ibv_end_poll. The CQ must have been created with CQConfig.Extended.
//
// Verb: ibv_start_poll(3), ibv_next_poll(3), ibv_end_poll(3), ibv_wc_read_opcode(3),
// ibv_wc_read_vendor_err(3), ibv_wc_read_byte_len(3), ibv_wc_read_imm_data(3),
// ibv_wc_read_invalidated_rkey(3), ibv_wc_read_qp_num(3), ibv_wc_read_src_qp(3),
// ibv_wc_read_wc_flags(3), ibv_wc_read_slid(3), ibv_wc_read_sl(3),
// ibv_wc_read_dlid_path_bits(3), ibv_wc_read_completion_ts(3),
// ibv_wc_read_completion_wallclock_ns(3), ibv_wc_read_cvlan(3),
// ibv_wc_read_flow_tag(3), ibv_wc_read_tm_info(3).
func (q *CQ) PollEx(wc []WCEx) (int, error) {
	if q.h.Enter() != nil {
		return 0, verbClosed("ibv_start_poll")
	}
	n, err := q.p.PollEx(wc)
	q.h.Exit()
	if err != nil {
		return n, verbErr("ibv_start_poll", err)
	}
	return n, nil
}

// ReqNotify asks for one event on the next completion, or on the next one that
// was sent with SendSolicited (or failed).
//
// Verb: ibv_req_notify_cq(3).
func (q *CQ) ReqNotify(solicitedOnly bool) error {
	if q.h.Enter() != nil {
		return verbClosed("ibv_req_notify_cq")
	}
	err := q.p.ReqNotify(solicitedOnly)
	q.h.Exit()
	return verbErr("ibv_req_notify_cq", err)
}

// Resize changes the capacity to at least cqe; completions stay. EINVAL when
// more than cqe are waiting.
//
// Verb: ibv_resize_cq(3).
func (q *CQ) Resize(cqe int) error {
	if err := enter(&q.h, "ibv_resize_cq"); err != nil {
		return err
	}
	defer q.h.Exit()
	if cqe < 1 || cqe > math.MaxInt32 {
		return &Error{Verb: "ibv_resize_cq", Cause: syscall.EINVAL, Hint: "a completion queue needs at least one entry, and at most DeviceAttr.MaxCQE"}
	}
	return verbErr("ibv_resize_cq", q.p.Resize(cqe))
}

// Modify sets moderation: an event after count completions or period microseconds.
//
// Verb: ibv_modify_cq(3).
func (q *CQ) Modify(count, period uint16) error {
	if err := enter(&q.h, "ibv_modify_cq"); err != nil {
		return err
	}
	defer q.h.Exit()
	return verbErr("ibv_modify_cq", q.p.Modify(count, period))
}

// Close frees the queue: ErrInUse while a queue pair uses it.
//
// Verb: ibv_destroy_cq(3).
func (q *CQ) Close() error {
	return verbErr("ibv_destroy_cq", q.h.Close(func() error {
		if err := q.p.Close(); err != nil {
			return err
		}
		q.c.forget(q.cookie)
		if q.ch != nil {
			q.signal() // a Wait parked on the channel finds the queue closed
		}
		return nil
	}))
}
