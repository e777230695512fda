package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/examples/blockstore/block"
	"github.com/zrdma/zrdma/internal/dpufault"
)

// zombie reads a block through an agent that hangs in the middle (--stall-after 1) and
// writes later. The call falls back; its buffer is then used for something else, and
// looked at after the agent has gone on. With --no-fence the right to the memory stays
// with the agent, as in a program that only waits for a timeout: the control, which
// must see the late write.
func (h *host) zombie(ctx context.Context, direct dpu.Blocks, unfenced chan struct{}) error {
	const k = "zombie"
	b, err := h.d.Pool().Get(ctx, h.size)
	if err != nil {
		return err
	}
	p, err := b.Bytes()
	if err != nil {
		return err
	}
	block.Content(p, 1)
	if b, err = direct.Put(ctx, k, b); err != nil {
		return err
	}
	clear(p)
	start := time.Now()
	b, err = h.c.Get(dpu.WithPath(ctx, dpu.Staged), k, b)
	took := time.Since(start)
	st := h.c.Stats()
	switch {
	case unfenced == nil && err != nil:
		return err
	case unfenced == nil && st.FellBack == 0:
		return errors.New("the agent did it: run it with --stall-after 1")
	case unfenced == nil:
		if err := h.same(b, 1); err != nil {
			return fmt.Errorf("after the fall-back: %w", err)
		}
	case !errors.Is(err, dpu.ErrAgentLost):
		return fmt.Errorf("the agent should have been lost: %v", err)
	}
	// The program goes on, and uses its memory for something else.
	block.Content(p, 2)
	time.Sleep(h.wait)
	want := make([]byte, len(p))
	block.Content(want, 2)
	changed := 0
	for i := range p {
		if p[i] != want[i] {
			changed++
		}
	}
	if unfenced != nil {
		close(unfenced)
		time.Sleep(time.Second)
	} else if err := b.Release(); err != nil {
		return err
	}
	fmt.Fprintf(h.out, "zombie: fence %v, fell back in %.1f ms (fences %d, %.2f ms in all), bytes changed by late writes %d of %d\n",
		unfenced == nil, ms(took), st.Fences, ms(st.FenceTime), changed, len(p))
	switch {
	case unfenced == nil && changed > 0:
		return fmt.Errorf("the buffer was corrupted: %d bytes", changed)
	case unfenced != nil && changed == 0:
		return errors.New("no late write was seen without a fence: the control proves nothing; is --wait longer than --stall?")
	}
	return nil
}

// prepareZombie sets the control up, before the client is made.
func (l *load) prepareZombie() chan struct{} {
	if !l.noFence {
		return nil
	}
	ch := make(chan struct{})
	dpufault.SetUnfenced(ch)
	return ch
}
