package verbs

import (
	"syscall"
	"weak"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// SRQConfig describes a shared receive queue. Type and the fields below it use
// the extended verb.
type SRQConfig struct {
	Attr       SRQAttr // MaxWR is required; MaxSGE 0: 1
	Type       SRQType // SRQTBasic
	XRCD       *XRCD   // SRQTXRC
	CQ         *CQ     // SRQTXRC, SRQTTM
	MaxNumTags uint32  // SRQTTM
	MaxOps     uint32  // SRQTTM
}

// SRQ is a receive queue that several queue pairs draw from.
type SRQ struct {
	h      handle.Handle
	d      *PD
	p      provider.SRQ
	cookie uint64
	attr   SRQAttr
	recv   recvScratch
}

// CreateSRQ makes a shared receive queue.
//
// Verb: ibv_create_srq(3), ibv_create_srq_ex(3).
func (d *PD) CreateSRQ(cfg SRQConfig) (*SRQ, error) {
	if cfg.Attr.MaxSGE == 0 {
		cfg.Attr.MaxSGE = 1
	}
	in := provider.SRQInit{Cookie: newCookie(), PD: d.p, Attr: cfg.Attr, Type: cfg.Type, MaxNumTags: cfg.MaxNumTags, MaxOps: cfg.MaxOps}
	in.Ex = cfg.Type != SRQTBasic || cfg.XRCD != nil || cfg.CQ != nil
	verb := "ibv_create_srq"
	if in.Ex {
		verb = "ibv_create_srq_ex"
	}
	if cfg.Attr.MaxWR == 0 {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "SRQConfig.Attr.MaxWR is required"}
	}
	if cfg.Type == SRQTXRC && (cfg.XRCD == nil || cfg.CQ == nil) {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "a queue for XRC needs SRQConfig.XRCD and CQ"}
	}
	parents := []*handle.Handle{&d.h}
	if cfg.XRCD != nil {
		in.XRCD = cfg.XRCD.p
		parents = append(parents, &cfg.XRCD.h)
	}
	if cfg.CQ != nil {
		in.CQ = cfg.CQ.p
		parents = append(parents, &cfg.CQ.h)
	}
	s := &SRQ{d: d, cookie: in.Cookie}
	if err := s.h.Init("verbs.SRQ", parents...); err != nil {
		return nil, verbErr(verb, err)
	}
	p, err := d.c.p.CreateSRQ(&in)
	if err != nil {
		s.h.Abandon()
		return nil, verbErr(verb, err)
	}
	s.p, s.attr = p, in.Attr
	d.c.register(s.cookie, weak.Make(s))
	watch(s, &s.h)
	return s, nil
}

// Attr is what the queue was given at creation.
func (s *SRQ) Attr() SRQAttr { return s.attr }

// PostRecv posts receive work requests in order and returns how many were
// accepted. ErrQueueFull when the queue has no room.
//
// Verb: ibv_post_srq_recv(3).
func (s *SRQ) PostRecv(wrs []RecvWR) (int, error) {
	if s.h.Enter() != nil {
		return 0, verbClosed("ibv_post_srq_recv")
	}
	defer s.h.Exit()
	return s.recv.post("ibv_post_srq_recv", wrs, s.p.PostRecv)
}

// Modify resizes the queue (SRQAttrMaxWR) or arms its limit event (SRQAttrLimit).
//
// Verb: ibv_modify_srq(3).
func (s *SRQ) Modify(a SRQAttr, mask SRQAttrMask) error {
	if err := enter(&s.h, "ibv_modify_srq"); err != nil {
		return err
	}
	defer s.h.Exit()
	return verbErr("ibv_modify_srq", s.p.Modify(&a, mask))
}

// Query reads the attributes.
//
// Verb: ibv_query_srq(3).
func (s *SRQ) Query() (a SRQAttr, err error) {
	if err := enter(&s.h, "ibv_query_srq"); err != nil {
		return a, err
	}
	defer s.h.Exit()
	return a, verbErr("ibv_query_srq", s.p.Query(&a))
}

// Num is the number that XRC peers address the queue by.
//
// Verb: ibv_get_srq_num(3).
func (s *SRQ) Num() (uint32, error) {
	if err := enter(&s.h, "ibv_get_srq_num"); err != nil {
		return 0, err
	}
	defer s.h.Exit()
	n, err := s.p.Num()
	return n, verbErr("ibv_get_srq_num", err)
}

// Close frees the queue: ErrInUse while a queue pair uses it.
//
// Verb: ibv_destroy_srq(3).
func (s *SRQ) Close() error {
	return verbErr("ibv_destroy_srq", s.h.Close(func() error {
		if err := s.p.Close(); err != nil {
			return err
		}
		s.d.c.forget(s.cookie)
		return nil
	}))
}
