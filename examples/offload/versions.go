package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/examples/blockstore/block"
)

// versions writes newer and newer versions of each block, reads each back and
// compares all of it, whatever happens to the agent. A write that comes late, or
// twice, would bring an older version back; one that got lost too. In the end every
// block is read once more, directly.
func (h *host) versions(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	end := time.Now().Add(max(h.duration, time.Second))
	var wg sync.WaitGroup
	for w := range h.workers {
		wg.Go(func() {
			// Each worker has blocks of its own, so that it knows what is there.
			last := map[int][2]uint64{} // the versions that a block may have
			v := uint64(0)
			for time.Now().Before(end) && ctx.Err() == nil {
				for i := w; i < h.blocks && time.Now().Before(end); i += h.workers {
					v++
					if err := h.version(ctx, i, v, last); err != nil {
						stop(fmt.Errorf("block %d, version %d: %w", i, v, err))
						return
					}
				}
			}
			for i, may := range last {
				if err := h.readBack(dpu.WithPath(ctx, dpu.Direct), i, may); err != nil {
					stop(fmt.Errorf("block %d in the end: %w", i, err))
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func seed(i int, v uint64) uint64 { return uint64(i)<<32 | v }

func (h *host) version(ctx context.Context, i int, v uint64, last map[int][2]uint64) error {
	call, cancel := context.WithTimeout(ctx, h.patience)
	defer cancel()
	b, err := h.d.Pool().Get(call, h.size)
	if err != nil {
		return err
	}
	p, err := b.Bytes()
	if err != nil {
		return err
	}
	block.Content(p, seed(i, v))
	switch b, err = h.c.Put(call, key(i), b); {
	case err == nil:
		last[i] = [2]uint64{v, v}
		if err := b.Release(); err != nil {
			return err
		}
	case errors.Is(err, dpu.ErrIndeterminate):
		last[i] = [2]uint64{last[i][1], v}
		if last[i][0] == 0 {
			return nil // it may not be there at all
		}
	default:
		return fmt.Errorf("put: %w", err)
	}
	return h.readBack(call, i, last[i])
}

func (h *host) readBack(ctx context.Context, i int, may [2]uint64) error {
	b, err := h.d.Pool().Get(ctx, h.size)
	if err != nil {
		return err
	}
	if b, err = h.c.Get(ctx, key(i), b); err != nil {
		return fmt.Errorf("get: %w", err)
	}
	defer b.Release()
	if err = h.same(b, seed(i, may[1])); err != nil && may[0] != may[1] {
		err = h.same(b, seed(i, may[0]))
	}
	return err
}
