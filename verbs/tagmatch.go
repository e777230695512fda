package verbs

import "github.com/zrdma/zrdma/internal/provider"

// OpsWR is an operation on the tag-matching list of a SRQ of type SRQTTM.
//
// Source: struct ibv_ops_wr.
type OpsWR struct {
	ID            uint64
	Opcode        OpsWROpcode
	Flags         OpsFlags
	UnexpectedCnt uint32 // with OpsTMSync: unexpected messages seen so far

	// WRTagAdd: receive into SGList, completing as RecvID, what carries Tag in
	// the bits of Mask.
	RecvID    uint64
	Tag, Mask uint64
	SGList    []SGE

	// Handle names the entry: PostOps stores it for WRTagAdd, WRTagDel needs it.
	Handle uint32
}

// PostOps posts operations on the tag-matching list in order and returns how
// many were accepted. It stores the handles of added entries.
//
// Verb: ibv_post_srq_ops(3).
func (s *SRQ) PostOps(ops []OpsWR) (int, error) {
	const verb = "ibv_post_srq_ops"
	if s.h.Enter() != nil {
		return 0, verbClosed(verb)
	}
	defer s.h.Exit()
	p, ok := s.p.(provider.OpsPoster)
	if !ok {
		return 0, verbErr(verb, errUnsupported)
	}
	wrs := make([]provider.OpsWR, len(ops))
	var sge []SGE
	for i := range ops {
		o := &ops[i]
		wrs[i] = provider.OpsWR{
			ID: o.ID, RecvID: o.RecvID, Tag: o.Tag, Mask: o.Mask, Opcode: o.Opcode, Flags: o.Flags,
			UnexpectedCnt: o.UnexpectedCnt, TagHandle: o.Handle, SGEOff: uint32(len(sge)), NumSGE: uint32(len(o.SGList)),
		}
		sge = append(sge, o.SGList...)
	}
	n, err := p.PostOps(wrs, sge)
	for i := range ops[:n] {
		ops[i].Handle = wrs[i].TagHandle
	}
	return n, verbErr(verb, err)
}
