package dpu_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
)

func TestLedger(t *testing.T) {
	l := dpu.NewLedger()
	w := dpu.NewWriter()
	boot, err := l.Fence(w, 3)
	require.NoError(t, err)
	require.Equal(t, l.Boot(w), boot)
	require.NotZero(t, boot)
	n := 0
	do := func(tok dpu.Token) error { return l.Apply(tok, func() error { n++; return nil }) }
	tok := dpu.Token{Writer: w, Seq: 1, Boot: boot, Epoch: 3}
	require.NoError(t, do(tok))
	require.NoError(t, do(tok), "a second time it is done already")
	tok.Epoch, tok.Replay = 0, true
	require.NoError(t, do(tok), "by the writer itself too")
	require.Equal(t, 1, n)
	tok = dpu.Token{Writer: w, Seq: 2, Boot: boot, Epoch: 2}
	require.ErrorIs(t, do(tok), dpu.ErrFenced)
	tok.Epoch = 3
	boom := errors.New("the disk is full")
	require.ErrorIs(t, l.Apply(tok, func() error { return boom }), boom)
	require.NoError(t, do(tok), "what failed was not done")
	require.Equal(t, 2, n)
	// What the server cannot know.
	for _, bad := range []dpu.Token{
		{Writer: w, Seq: 9, Boot: boot + 1, Epoch: 3},
		{Writer: w, Seq: 9, Boot: boot + 1, Replay: true},
		{Writer: dpu.NewWriter(), Seq: 9, Boot: boot, Epoch: 3},
	} {
		require.ErrorIs(t, do(bad), dpu.ErrStale, "%+v", bad)
	}
	require.NoError(t, do(dpu.Token{Writer: w, Seq: 10_000, Boot: boot}))
	require.ErrorIs(t, do(dpu.Token{Writer: w, Seq: 1, Boot: boot, Replay: true}), dpu.ErrStale, "too old to be remembered")
	require.NoError(t, do(dpu.Token{Writer: w, Seq: 9000, Boot: boot, Epoch: 3}))
	_, err = l.Fence(dpu.Writer{}, 1)
	require.Error(t, err)
	require.NoError(t, do(dpu.Token{}), "without a token nothing is remembered")
	require.NoError(t, do(dpu.Token{}))
	require.Equal(t, 6, n)
}

// TestLedgerModel: whoever sends a write how often, it is done once at most, and never
// for an agent that was fenced before.
func TestLedgerModel(t *testing.T) {
	for seed := *simSeed; seed < *simSeed+10*uint64(*simSeeds); seed++ {
		r := rng(seed, 4)
		l := dpu.NewLedger()
		writers := []dpu.Writer{dpu.NewWriter(), dpu.NewWriter()}
		fenced := make([]uint32, 2)
		done := map[[2]uint64]int{}
		for i := range writers {
			_, err := l.Fence(writers[i], 0)
			require.NoError(t, err)
		}
		top := make([]uint64, 2)
		for range 2000 {
			i := r.IntN(2)
			if r.IntN(50) == 0 {
				fenced[i] = max(fenced[i], uint32(r.IntN(20)))
				_, _ = l.Fence(writers[i], fenced[i])
			}
			if r.IntN(300) == 0 {
				top[i] += uint64(r.IntN(9000))
			}
			tok := dpu.Token{Writer: writers[i], Boot: l.Boot(writers[i]), Epoch: uint32(r.IntN(20)), Replay: r.IntN(2) == 0}
			tok.Seq = top[i] + uint64(r.IntN(40))
			if r.IntN(10) == 0 {
				tok.Seq -= min(tok.Seq, uint64(r.IntN(6000)))
			}
			if r.IntN(20) == 0 {
				tok.Boot++
			}
			fails := r.IntN(10) == 0
			err := l.Apply(tok, func() error {
				if fails {
					return errors.New("no")
				}
				done[[2]uint64{uint64(i), tok.Seq}]++
				if tok.Epoch != 0 && tok.Epoch < fenced[i] {
					t.Errorf("seed %d: a fenced agent's write was done", seed)
				}
				return nil
			})
			if n := done[[2]uint64{uint64(i), tok.Seq}]; err == nil && n != 1 || n > 1 {
				t.Fatalf("seed %d: write %d was done %d times: %v", seed, tok.Seq, n, err)
			}
		}
	}
}

func TestTokenEncoding(t *testing.T) {
	tok := dpu.Token{Writer: dpu.NewWriter(), Seq: 1 << 40, Boot: 7, Epoch: 9, Replay: true}
	b, err := tok.AppendBinary(nil)
	require.NoError(t, err)
	require.Len(t, b, dpu.TokenLen)
	var got dpu.Token
	require.NoError(t, got.UnmarshalBinary(b))
	require.Equal(t, tok, got)
	require.Error(t, got.UnmarshalBinary(b[:39]))
	b[37] = 1
	require.Error(t, got.UnmarshalBinary(b))
}

// A writer that was forgotten, for many came after it, is like one before a restart:
// what its agents, or it again, bring late is refused.
func TestLedgerForgets(t *testing.T) {
	l := dpu.NewLedger()
	w := dpu.NewWriter()
	boot, err := l.Fence(w, 2)
	require.NoError(t, err)
	n := 0
	do := func(tok dpu.Token) error { return l.Apply(tok, func() error { n++; return nil }) }
	require.NoError(t, do(dpu.Token{Writer: w, Seq: 1, Boot: boot}))
	for range 16384 {
		_, err := l.Fence(dpu.NewWriter(), 1)
		require.NoError(t, err)
	}
	late := dpu.Token{Writer: w, Seq: 2, Boot: boot, Epoch: 1}
	again := dpu.Token{Writer: w, Seq: 1, Boot: boot, Replay: true}
	require.ErrorIs(t, do(late), dpu.ErrStale)
	require.ErrorIs(t, do(again), dpu.ErrStale)
	require.NoError(t, do(dpu.Token{Writer: w, Seq: 3, Boot: boot}), "a new write of its own")
	require.ErrorIs(t, do(late), dpu.ErrStale)
	require.ErrorIs(t, do(again), dpu.ErrStale)
	require.NotEqual(t, boot, l.Boot(w))
	require.NoError(t, do(dpu.Token{Writer: w, Seq: 4, Boot: l.Boot(w), Epoch: 1}), "of an agent that knows")
	require.Equal(t, 3, n)
}
