package qp

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/verbs"
)

// The work of TestWindowsUnderRetries and, between two hosts, of TestPeer.
const windowWorkers, windowRounds, windowSize = 6, 150, 32 << 10

// A queue pair that sends again after a millisecond, often without need.
var hasty = Config{Timeout: 8}

// Windows are bound behind messages that are not acknowledged yet, on queue pairs that
// send again soon: nothing that was executed may be executed again. rxe does that
// with binds and invalidations (docs/rxe.md), so package qp keeps them back until
// nothing stands before them. Half of the windows the peer takes away, the others
// are invalidated here.
func TestWindowsUnderRetries(t *testing.T) {
	da, db := devices(t)
	for _, repeats := range []bool{da.repeats, true} {
		t.Run(fmt.Sprintf("kept back=%v", repeats), func(t *testing.T) {
			da.repeats, db.repeats = repeats, repeats
			a, b := pair(t, da, db, hasty, hasty)
			ctx := testCtx(t)
			answered := make(chan error, 1)
			go func() { answered <- answerWindows(ctx, db, b) }()
			require.NoError(t, askWindows(ctx, da, a))
			require.NoError(t, <-answered)
		})
	}
}

// askWindows shows memory to the peer, that of all workers at a time, and checks what
// comes.
func askWindows(ctx context.Context, d *Device, c *Conn) error {
	granter, err := mr.NewGranter(d.PD(), mr.GranterConfig{})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var group sync.WaitGroup
	run := func(f func() error) {
		group.Go(func() {
			if err := f(); err != nil {
				stop(err) // the first counts
			}
		})
	}
	var answers [windowWorkers]chan Message
	for i := range answers {
		answers[i] = make(chan Message, 1)
		run(func() error {
			for r := range windowRounds {
				if err := askWindow(ctx, d, c, granter, i, r, answers[i]); err != nil {
					return fmt.Errorf("worker %d, round %d: %w", i, r, err)
				}
			}
			return nil
		})
	}
	run(func() error {
		for range windowWorkers * windowRounds {
			m, err := c.Recv(ctx)
			if err != nil {
				return err
			}
			p, err := m.Buf.Bytes()
			if err != nil {
				return err
			}
			answers[p[0]] <- m
		}
		return nil
	})
	group.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if s := granter.Stats(); s.Killed+uint64(s.Leaked) > 0 {
		return fmt.Errorf("grants: %+v", s)
	}
	return granter.Close()
}

// askWindow shows memory to the peer and waits until it has been written.
func askWindow(ctx context.Context, d *Device, c *Conn, g *mr.Granter, worker, round int, answer <-chan Message) error {
	buf, err := d.Pool().Get(ctx, windowSize)
	if err != nil {
		return err
	}
	grant, err := g.Start(ctx, c, buf, mr.DeviceWrites)
	if err != nil {
		return err
	}
	var ask [20]byte
	ask[0], ask[1], ask[2] = byte(worker), byte(round), byte(round&1)
	binary.LittleEndian.PutUint64(ask[4:], grant.Remote().Addr)
	binary.LittleEndian.PutUint32(ask[12:], uint32(grant.Remote().RKey))
	if err := c.Post(ctx, Op{Kind: Send, Data: ask[:], Join: round%3 == 0}); err != nil {
		return err
	}
	var m Message
	select {
	case m = <-answer:
	case <-c.Done():
		return c.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	grant.Invalidated(&m.WC)
	if err := m.Buf.Release(); err != nil {
		return err
	}
	if buf, err = grant.Finish(ctx); err != nil {
		return err
	}
	p, err := buf.Bytes()
	if err != nil {
		return err
	}
	for _, at := range []int{0, windowSize - 1} {
		if p[at] != byte(worker^round) {
			return fmt.Errorf("byte %d is %#x, want %#x", at, p[at], byte(worker^round))
		}
	}
	return buf.Release()
}

// answerWindows writes into the memory that each message shows, and says so.
func answerWindows(ctx context.Context, d *Device, c *Conn) error {
	for range windowWorkers * windowRounds {
		m, err := c.Recv(ctx)
		if err != nil {
			return err
		}
		p, err := m.Buf.Bytes()
		if err != nil {
			return err
		}
		to := Remote{Addr: binary.LittleEndian.Uint64(p[4:]), RKey: verbs.RKey(binary.LittleEndian.Uint32(p[12:])), Len: windowSize}
		worker, round, keep := p[0], p[1], p[2] == 1
		if err := m.Buf.Release(); err != nil {
			return err
		}
		buf, err := d.Pool().Get(ctx, windowSize)
		if err != nil {
			return err
		}
		if p, err = buf.Bytes(); err != nil {
			return err
		}
		for i := range p {
			p[i] = worker ^ round
		}
		say := Op{Kind: Send, Data: []byte{worker}}
		if !keep {
			say.Invalidate = to.RKey
		}
		if err := c.Post(ctx, Op{Kind: Write, Bufs: []mr.Buf{buf}, Remote: to}, say); err != nil {
			return err
		}
	}
	return nil
}
