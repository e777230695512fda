package dpu_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
)

func TestPolicyRefusesNonsense(t *testing.T) {
	for _, p := range []dpu.Policy{{Path: 9}, {MaxDepth: -1}, {MaxDepth: 4, ResumeDepth: 4}, {ResumeDepth: -1}, {Probation: time.Minute, MaxProbation: time.Second}} {
		_, err := dpu.NewPolicyState(p)
		require.Error(t, err, "%+v", p)
	}
	s, err := dpu.NewPolicyState(dpu.Policy{})
	require.NoError(t, err)
	require.Equal(t, dpu.Policy{MinSize: 64 << 10, MaxDepth: 64, ResumeDepth: 32, Probation: time.Second, MaxProbation: time.Minute}, s.Policy())
}

func TestParsePath(t *testing.T) {
	for _, p := range []dpu.Path{dpu.Auto, dpu.Direct, dpu.Staged, dpu.CrossGVMI} {
		got, err := dpu.ParsePath(p.String())
		require.NoError(t, err)
		require.Equal(t, p, got)
	}
	_, err := dpu.ParsePath("sideways")
	require.ErrorContains(t, err, "staged")
}

// TestPolicyModel does what can happen to a policy at random, and checks what it must
// keep, whatever happened:
//   - what is asked for explicitly is done, or is ErrNoAgent;
//   - an operation goes to an agent only if there is one, it was heard of, and it has
//     been well for the whole of its probation since the last loss;
//   - small ones never go to it; large ones do, if it is well and not full;
//   - between full and not full lies the whole distance of the two depths;
//   - probation grows with losses that follow each other, and never beyond its bound.
func TestPolicyModel(t *testing.T) {
	for seed := *simSeed; seed < *simSeed+60*uint64(*simSeeds); seed++ {
		r := rng(seed, 3)
		cfg := dpu.Policy{MinSize: []int{-1, 0, 1000}[r.IntN(3)], MaxDepth: 2 + r.IntN(30), Probation: time.Duration(1+r.IntN(1000)) * time.Millisecond}
		cfg.ResumeDepth = r.IntN(cfg.MaxDepth)
		if r.IntN(5) == 0 {
			cfg.Path = dpu.Path(1 + r.IntN(2))
		}
		s, err := dpu.NewPolicyState(cfg)
		require.NoError(t, err)
		p := s.Policy()
		var now, wellSince, lostAt time.Duration
		up, suspect, lost, depth, full := false, false, false, 0, false
		probation, changes, sinceChange := time.Duration(0), uint64(0), 0
		for range 300 {
			now += time.Duration(r.IntN(400)) * time.Millisecond
			switch r.IntN(12) {
			case 0:
				if !up {
					s.Up(now)
					up, suspect, wellSince = true, false, now
				}
			case 1:
				if up {
					s.Lost(now)
					next := p.Probation
					if lost && now-lostAt <= 10*probation {
						next = min(2*probation, p.MaxProbation)
					}
					up, lost, lostAt, probation = false, true, now, next
				}
			case 2:
				well := r.IntN(3) > 0
				if up {
					s.Heard(now, well)
					suspect = !well
				}
			case 3, 4, 5:
				s.Begin()
				depth++
				sinceChange++
			case 6, 7, 8:
				if depth > 0 {
					s.End()
					depth--
					sinceChange++
				}
			}
			if c := s.Changes(); c != changes {
				require.Equal(t, changes+1, c, "seed %d", seed)
				if changes > 0 {
					require.GreaterOrEqual(t, sinceChange, p.MaxDepth-p.ResumeDepth, "it flaps: seed %d", seed)
				}
				changes, sinceChange, full = c, 0, !full
			}
			require.False(t, full && depth <= p.ResumeDepth, "seed %d", seed)
			require.False(t, !full && depth >= p.MaxDepth, "seed %d", seed)

			asked, size := dpu.Path(r.IntN(3)), r.IntN(200_000)
			got, err := s.Choose(now, size, asked)
			want := asked
			if want == dpu.Auto {
				want = p.Path
			}
			switch {
			case want == dpu.Staged && !up:
				require.ErrorIs(t, err, dpu.ErrNoAgent, "seed %d", seed)
			case want != dpu.Auto:
				require.NoError(t, err)
				require.Equal(t, want, got, "seed %d", seed)
			default:
				require.NoError(t, err)
				if got == dpu.Staged {
					require.True(t, up && !suspect && !full && size >= p.MinSize, "seed %d", seed)
					require.False(t, lost && now-wellSince < probation, "on probation: seed %d", seed)
				} else if up && !suspect && !full && size >= p.MinSize && now-wellSince >= probation {
					// Only a silence may keep it longer, for a quarter of Probation.
					later, _ := s.Choose(now+p.Probation/4, size, asked)
					require.Equal(t, dpu.Staged, later, "seed %d", seed)
				}
			}
		}
	}
}

// An agent whose store does not answer rests, longer each time, until an operation
// ends well.
func TestPolicyOfBadEnds(t *testing.T) {
	s, err := dpu.NewPolicyState(dpu.Policy{Probation: time.Second, MaxProbation: 3 * time.Second})
	require.NoError(t, err)
	s.Up(0)
	at := func(now time.Duration, want dpu.Path) {
		t.Helper()
		got, err := s.Choose(now, 1<<20, dpu.Auto)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	now := time.Second
	s.Ended(now, false)
	s.Ended(now, false)
	at(now, dpu.Staged)
	s.Ended(now, true)
	s.Ended(now, false)
	s.Ended(now, false)
	at(now, dpu.Staged)
	s.Ended(now, false)
	at(now, dpu.Direct)
	for _, rest := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second} {
		at(now+rest-1, dpu.Direct)
		now += rest
		at(now, dpu.Staged)
		s.Ended(now, false) // one is enough now
	}
	now += 3 * time.Second
	s.Ended(now, true)
	s.Ended(now, false)
	at(now, dpu.Staged)
}
