package mr

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

var modelSeed = flag.Uint64("mr.seed", 0, "run the model test with this seed only")

// The model of ownership: tokens, each the right of one holder. It knows nothing
// of words and locks.
type token struct {
	mem    *memory
	lo, hi int // of the memory
	buf    Buf
	flight Flight
	dir    Direction
	state  tokenState
	lost   bool
}

type tokenState int

const (
	held tokenState = iota
	flying
	gone // posted, completed or released: a stale copy
	away // leaked or in quarantine: the device has it
)

// memory is one slot between Get and its return.
type memory struct {
	stamp  byte
	tokens map[*token]bool // held, flying or away
	lost   bool            // a part was leaked: never comes back
}

type model struct {
	t     *testing.T
	r     *rand.Rand
	pd    *verbs.PD
	p     *Pool
	all   []*token
	stale []*token
	n     int // memories out
	leaks int
	stamp byte
	log   []string
}

func (m *model) say(f string, a ...any) { m.log = append(m.log, fmt.Sprintf(f, a...)) }

func (m *model) pick(s tokenState) *token {
	var l []*token
	for _, k := range m.all {
		if k.state == s {
			l = append(l, k)
		}
	}
	if len(l) == 0 {
		return nil
	}
	return l[m.r.IntN(len(l))]
}

// blocked reports a flight of another holder that does not go with use d of [lo, hi).
func (k *token) blocked(lo, hi int, d Direction) bool {
	for o := range k.mem.tokens {
		if o == k || o.state == held || o.lo >= hi || lo >= o.hi || d == DeviceReads && o.dir == DeviceReads {
			continue
		}
		return true
	}
	return false
}

func (m *model) add(k *token) {
	k.mem.tokens[k] = true
	m.all = append(m.all, k)
}

// end takes a token out, and keeps what it was as a stale copy.
func (m *model) end(k *token) {
	delete(k.mem.tokens, k)
	if i := slices.Index(m.all, k); i >= 0 {
		m.all = slices.Delete(m.all, i, i+1)
	}
	k.state = gone
	m.outdate(k.buf, k.flight)
	if len(k.mem.tokens) == 0 { // never so while a lost one is among them
		m.n--
	}
}

func (m *model) outdate(b Buf, f Flight) {
	if len(m.stale) < 64 {
		m.stale = append(m.stale, &token{buf: b, flight: f})
	} else {
		m.stale[m.r.IntN(64)] = &token{buf: b, flight: f}
	}
}

// look checks Bytes of a held token against the model, and the content.
func (m *model) look(k *token) {
	b, err := k.buf.Bytes()
	if k.blocked(k.lo, k.hi, DeviceWrites) {
		refused(m.t, Overlap, err)
		return
	}
	require.NoError(m.t, err)
	require.Len(m.t, b, k.hi-k.lo)
	for _, c := range b {
		require.Equal(m.t, k.mem.stamp, c, "the memory was handed out twice")
	}
}

// device is what the NIC does: it reaches memory by the element, not by the Buf.
func (m *model) device(k *token) {
	sge, err := k.flight.SGE(m.pd)
	require.NoError(m.t, err)
	require.EqualValues(m.t, k.hi-k.lo, sge.Length)
	r := k.flight.Region()
	mr := r.MR(m.pd)
	require.Equal(m.t, mr.LKey(), sge.LKey)
	mem := r.mem[sge.Addr-mr.Addr():][:sge.Length]
	for i := range mem {
		require.Equal(m.t, k.mem.stamp, mem[i])
		if k.dir == DeviceWrites {
			mem[i] = k.mem.stamp
		}
	}
}

func (m *model) step() {
	t := m.t
	switch op := m.r.IntN(15); op {
	case 0, 1:
		n := 1 + m.r.IntN(200)
		b, err := m.p.TryGet(n)
		m.say("get %d: %v", n, err)
		if err != nil {
			require.ErrorIs(t, err, ErrExhausted)
			require.Positive(t, m.n)
			return
		}
		m.n++
		m.stamp++
		k := &token{mem: &memory{stamp: m.stamp, tokens: map[*token]bool{}}, hi: n, buf: b}
		bytes, err := b.Bytes()
		require.NoError(t, err)
		for i := range bytes {
			bytes[i] = m.stamp
		}
		m.add(k)
	case 2, 3:
		if k := m.pick(held); k != nil {
			m.say("release")
			require.NoError(t, k.buf.Release())
			m.end(k)
		}
	case 4, 5:
		if k := m.pick(held); k != nil {
			d := Direction(1 + m.r.IntN(2))
			f, err := k.buf.Take(d)
			m.say("take %v: %v", d, err)
			if k.blocked(k.lo, k.hi, d) {
				refused(t, Overlap, err)
				return
			}
			require.NoError(t, err)
			k.flight, k.dir, k.state = f, d, flying
		}
	case 6, 7:
		if k := m.pick(flying); k != nil {
			m.say("complete")
			m.device(k)
			old := k.buf
			k.buf, k.state = k.flight.Complete(), held
			m.outdate(old, k.flight)
		}
	case 8:
		if k := m.pick(flying); k != nil {
			m.say("undo")
			require.Equal(t, k.buf, k.flight.Undo())
			k.state = held
		}
	case 9:
		if k := m.pick(flying); k != nil {
			m.say("release in flight")
			m.device(k)
			k.flight.Release()
			m.end(k)
		}
	case 10:
		if k := m.pick(held); k != nil {
			lo := m.r.IntN(k.hi - k.lo)
			hi := lo + 1 + m.r.IntN(k.hi-k.lo-lo)
			b, err := k.buf.Slice(lo, hi)
			m.say("slice %d:%d: %v", lo, hi, err)
			require.NoError(t, err)
			m.add(&token{mem: k.mem, lo: k.lo + lo, hi: k.lo + hi, buf: b})
		}
	case 11:
		if k := m.pick(flying); k != nil {
			m.say("quarantine")
			k.flight.Quarantine(time.Duration(1+m.r.IntN(3)) * time.Millisecond)
			old := k.flight
			k.state = away
			m.outdate(k.buf, old)
		}
	case 12:
		if k := m.pick(flying); k != nil && m.leaks < 2 && m.r.IntN(20) == 0 {
			m.say("leak")
			k.flight.Leak("the model says so")
			if !k.mem.lost {
				m.leaks++
			}
			k.state = away
			k.mem.lost, k.lost = true, true
		}
	case 13:
		if k := m.pick(held); k != nil {
			m.look(k)
		}
	default:
		m.misuse()
	}
}

// misuse uses what is stale or in flight: every way is refused and changes nothing.
func (m *model) misuse() {
	t := m.t
	check := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, ErrMoved)
	}
	var b Buf
	if k := m.pick(flying); k != nil && m.r.IntN(2) == 0 {
		b = k.buf
	} else if len(m.stale) > 0 {
		k := m.stale[m.r.IntN(len(m.stale))]
		b = k.buf
		if !k.flight.IsZero() {
			require.Panics(t, func() { k.flight.Complete() })
			require.Panics(t, k.flight.Release)
		}
	} else {
		return
	}
	m.say("misuse")
	check(b.Release())
	check(b.Err())
	check(one(b.Bytes()))
	check(one(b.Take(DeviceReads)))
	check(one(b.Slice(0, b.Len())))
}

// settle lets quarantines end and brings the model up to date.
func (m *model) settle() {
	time.Sleep(10 * time.Millisecond)
	for _, k := range slices.Clone(m.all) {
		if k.state == away && !k.lost {
			m.end(k)
		}
	}
}

func TestOwnershipModel(t *testing.T) {
	seeds := uint64(2000)
	if testing.Short() || raceBuild {
		seeds = 200
	}
	if *modelSeed != 0 {
		runModel(t, *modelSeed)
		return
	}
	for s := uint64(1); s <= seeds && !t.Failed(); s++ {
		runModel(t, s)
	}
}

func runModel(t *testing.T, seed uint64) {
	var m *model
	defer func() {
		if t.Failed() {
			t.Logf("go test ./mr -run TestOwnershipModel -mr.seed=%d", seed)
			for _, l := range m.log[max(0, len(m.log)-40):] {
				t.Log(l)
			}
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDev{}
		pd := d.pd(t)
		r := rand.New(rand.NewPCG(seed, 1))
		p, err := NewPool(PoolConfig{Classes: []int{64, 256}, Limit: 16 << 10, RegionSize: 4096, Canaries: true, Memory: Config{Huge: HugeOff}}, pd)
		require.NoError(t, err)
		p.acct.settled = timeOnly // the kernel's grace period knows no virtual time
		m = &model{t: t, r: r, pd: pd, p: p}
		for range 300 {
			m.step()
			if r.IntN(30) == 0 {
				m.settle()
			}
		}
		if slices.ContainsFunc(m.all, func(k *token) bool { return !k.lost }) {
			require.ErrorIs(t, p.Close(), ErrInUse)
		}
		m.settle()
		for _, k := range m.all {
			switch k.state {
			case flying:
				k.flight.Release()
			case held:
				require.NoError(t, k.buf.Release())
			}
		}
		st := p.Stats()
		require.Zero(t, st.Damaged)
		require.Zero(t, st.Quarantined)
		require.Zero(t, st.QuarantineBytes)
		free := 0
		slots := 0
		for _, c := range st.Classes {
			free += c.Free
			slots += c.Slots
		}
		require.Equal(t, slots-st.Leaked, free, "all that did not leak came back: %+v", st)
		require.NoError(t, p.Close())
		require.True(t, errors.Is(one(p.Get(t.Context(), 1)), ErrClosed))
	})
}
