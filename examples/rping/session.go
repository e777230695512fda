package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

// errGone ends a session whose peer has disconnected.
var errGone = errors.New("the peer has disconnected")

// Work request ids. A receive adds its slot.
const (
	idSend = iota
	idRDMA
	idRecv
)

const slots = 2 // receives posted: the peer is at most one message ahead

// session is a connection that speaks the protocol.
type session struct {
	c        *rdmacm.Conn
	patience time.Duration
	msgs     *verbs.MR // slots to receive into, then one to send from
	data     *verbs.MR
	sink     *verbs.MR // client: where the data comes back
	done     [2]bool   // completed, by id
	queue    []info    // received and not taken
}

func qpConfig() verbs.QPConfig {
	return verbs.QPConfig{SQSigAll: true, Cap: verbs.QPCap{MaxSendWR: 4, MaxRecvWR: slots, MaxSendSGE: 1, MaxRecvSGE: 1}}
}

func newSession(c *rdmacm.Conn, o options) (*session, error) {
	s := &session{c: c, patience: o.patience}
	for _, r := range []struct {
		mr     **verbs.MR
		n      int
		access verbs.AccessFlags
	}{
		{&s.msgs, (slots + 1) * infoSize, verbs.AccessLocalWrite},
		{&s.data, o.size, verbs.AccessLocalWrite | verbs.AccessRemoteRead},
		{&s.sink, o.size, verbs.AccessLocalWrite | verbs.AccessRemoteWrite},
	} {
		m, err := c.PD.RegMR(make([]byte, r.n), r.access)
		if err != nil {
			return nil, err
		}
		c.Own(m)
		*r.mr = m
	}
	for i := range slots {
		if err := s.postRecv(i); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// watch flushes the queue pair when the peer disconnects, which wakes a wait.
func (s *session) watch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	end := make(chan struct{})
	go func() {
		defer close(end)
		if s.c.WaitDisconnected(ctx) == nil {
			_ = s.c.Disconnect()
		}
	}()
	return func() { cancel(); <-end }
}

func (s *session) postRecv(slot int) error {
	_, err := s.c.QP.PostRecv([]verbs.RecvWR{{ID: uint64(idRecv + slot), SGList: []verbs.SGE{s.msgs.SGE(slot*infoSize, infoSize)}}})
	return err
}

func (s *session) post(wr verbs.SendWR) error {
	s.done[wr.ID] = false
	_, err := s.c.QP.PostSend([]verbs.SendWR{wr})
	return err
}

// wait takes completions until ready says so.
func (s *session) wait(ctx context.Context, what string, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	var wc [4]verbs.WC
	for !ready() {
		n, err := s.c.SendCQ.Wait(ctx, wc[:], 0)
		if err != nil {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		for i := range wc[:n] {
			if err := s.complete(&wc[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *session) complete(w *verbs.WC) error {
	if w.Status == verbs.WCWRFlushErr {
		return errGone
	}
	if err := verbs.WCErr(w); err != nil {
		return err
	}
	if w.WRID < idRecv {
		s.done[w.WRID] = true
		return nil
	}
	slot := int(w.WRID - idRecv)
	// A longer message than the slot fails the connection by itself.
	at := slot * infoSize
	m, err := decodeInfo(s.msgs.Bytes()[at : at+int(w.ByteLen)])
	if err != nil {
		return err
	}
	s.queue = append(s.queue, m)
	if len(s.queue) > slots {
		return errors.New("the peer sends messages without waiting for its turn")
	}
	return s.postRecv(slot)
}

func (s *session) recv(ctx context.Context, what string) (info, error) {
	if err := s.wait(ctx, what, func() bool { return len(s.queue) > 0 }); err != nil {
		return info{}, err
	}
	m := s.queue[0]
	s.queue = s.queue[1:]
	return m, nil
}

func (s *session) send(ctx context.Context, m info) error {
	at := slots * infoSize
	m.encode(s.msgs.Bytes()[at : at+infoSize])
	if err := s.post(verbs.SendWR{ID: idSend, Opcode: verbs.WRSend, SGList: []verbs.SGE{s.msgs.SGE(at, infoSize)}}); err != nil {
		return err
	}
	return s.wait(ctx, "a send", func() bool { return s.done[idSend] })
}

func (s *session) rdma(ctx context.Context, op verbs.WROpcode, n int, to info) error {
	err := s.post(verbs.SendWR{ID: idRDMA, Opcode: op, SGList: []verbs.SGE{s.data.SGE(0, n)}, RemoteAddr: to.addr, RKey: verbs.RKey(to.rkey)})
	if err != nil {
		return err
	}
	return s.wait(ctx, op.String(), func() bool { return s.done[idRDMA] })
}

// announce tells the peer of memory.
func (s *session) announce(ctx context.Context, m *verbs.MR) error {
	return s.send(ctx, info{m.Addr(), uint32(m.RKey()), uint32(m.Len())})
}
