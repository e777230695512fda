package roce

import (
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/rc"
)

func newSRQ(t *testing.T, c *devCtx, a provider.SRQAttr) *srq {
	t.Helper()
	s, err := c.CreateSRQ(&provider.SRQInit{Cookie: 42, PD: newPD(t, c), Attr: a})
	require.NoError(t, err)
	return s.(*srq)
}

func (s *srq) post(t *testing.T, from, n uint64) error {
	t.Helper()
	for i := range n {
		if k, err := s.PostRecv([]provider.RecvWR{{ID: from + i, NumSGE: 1}}, []provider.SGE{{Addr: from + i, Length: 8}}); err != nil {
			require.Zero(t, k)
			return err
		}
	}
	return nil
}

// next takes a request as a queue pair does.
func (s *srq) next() (id uint64, ok bool) {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	var r rc.Recv
	ok = s.NextRecv(&r)
	return r.ID, ok
}

func TestSRQRefusals(t *testing.T) {
	c := objects(false)
	p := newPD(t, c)
	for name, tt := range map[string]struct {
		in   provider.SRQInit
		want error
	}{
		"no request":      {provider.SRQInit{PD: p}, syscall.EINVAL},
		"too many":        {provider.SRQInit{PD: p, Attr: provider.SRQAttr{MaxWR: maxSRQWR + 1}}, syscall.EINVAL},
		"too wide":        {provider.SRQInit{PD: p, Attr: provider.SRQAttr{MaxWR: 1, MaxSGE: maxSRQSGE + 1}}, syscall.EINVAL},
		"tag matching":    {provider.SRQInit{PD: p, Type: provider.SRQTTM, Attr: provider.SRQAttr{MaxWR: 1}}, syscall.EOPNOTSUPP},
		"XRC":             {provider.SRQInit{PD: p, Type: provider.SRQTXRC, Attr: provider.SRQAttr{MaxWR: 1}}, syscall.EOPNOTSUPP},
		"no domain":       {provider.SRQInit{Attr: provider.SRQAttr{MaxWR: 1}}, syscall.EINVAL},
		"foreign domain":  {provider.SRQInit{PD: newPD(t, objects(false)), Attr: provider.SRQAttr{MaxWR: 1}}, syscall.EINVAL},
		"a domain's, all": {provider.SRQInit{PD: p, Attr: provider.SRQAttr{MaxWR: maxSRQWR, MaxSGE: maxSRQSGE}}, nil},
	} {
		s, err := c.CreateSRQ(&tt.in)
		require.Equal(t, tt.want, err, name)
		if err == nil {
			require.Equal(t, syscall.EBUSY, p.Close())
			_, err = s.Num()
			require.Equal(t, syscall.EOPNOTSUPP, err)
			require.NoError(t, s.Close())
			require.NoError(t, p.Close())
		}
	}
	s := newSRQ(t, c, provider.SRQAttr{MaxWR: 2, MaxSGE: 1})
	k, err := s.PostRecv([]provider.RecvWR{{ID: 1, NumSGE: 1}, {ID: 2, NumSGE: 2}}, make([]provider.SGE, 2))
	require.Error(t, err, "more elements than a request has")
	require.Equal(t, 1, k)
	_, err = s.PostRecv([]provider.RecvWR{{ID: 3, SGEOff: 1, NumSGE: 1}}, make([]provider.SGE, 1))
	require.Equal(t, syscall.EINVAL, err, "elements that are not there")
	require.NoError(t, s.post(t, 4, 1))
	require.Equal(t, syscall.ENOMEM, s.post(t, 5, 1), "full")
	for _, want := range []uint64{1, 4} {
		id, ok := s.next()
		require.True(t, ok)
		require.Equal(t, want, id)
	}
	_, ok := s.next()
	require.False(t, ok)
}

func TestSRQLimit(t *testing.T) {
	c := objects(false)
	s := newSRQ(t, c, provider.SRQAttr{MaxWR: 10, MaxSGE: 1, Limit: 9})
	var a provider.SRQAttr
	require.NoError(t, s.Query(&a))
	require.Zero(t, a.Limit, "it is armed by Modify only")
	require.NoError(t, s.post(t, 0, 8))
	set := func(limit uint32) error { return s.Modify(&provider.SRQAttr{Limit: limit}, provider.SRQAttrLimit) }
	require.Equal(t, syscall.EINVAL, set(11), "more than it can hold")
	require.NoError(t, set(6))
	require.NoError(t, s.Query(&a))
	require.Equal(t, provider.SRQAttr{MaxWR: 10, MaxSGE: 1, Limit: 6}, a)
	take := func(n int) {
		for range n {
			_, ok := s.next()
			require.True(t, ok)
		}
	}
	take(2)
	require.Empty(t, events(c), "6 are left")
	take(1)
	require.Equal(t, []provider.AsyncEvent{{Type: provider.EventSRQLimitReached, Cookie: 42}}, events(c))
	require.NoError(t, s.Query(&a))
	require.Zero(t, a.Limit)
	take(2)
	require.Empty(t, events(c), "once")
	require.NoError(t, set(5))
	require.Empty(t, events(c), "only taking a request raises it")
	require.NoError(t, s.post(t, 20, 7))
	take(5)
	require.Empty(t, events(c))
	take(1)
	require.Len(t, events(c), 1)
	require.NoError(t, set(2))
	require.NoError(t, set(0))
	take(4)
	require.Empty(t, events(c), "disarmed")
	require.Equal(t, syscall.EINVAL, s.Modify(&a, 1<<7))
}

func TestSRQResize(t *testing.T) {
	s := newSRQ(t, objects(false), provider.SRQAttr{MaxWR: 4, MaxSGE: 1})
	size := func(n uint32) error { return s.Modify(&provider.SRQAttr{MaxWR: n}, provider.SRQAttrMaxWR) }
	require.NoError(t, s.post(t, 0, 4))
	require.NoError(t, size(100))
	require.NoError(t, s.post(t, 4, 6))
	for _, n := range []uint32{0, 9, maxSRQWR + 1, 1<<32 - 1} {
		require.Equal(t, syscall.EINVAL, size(n), "%d", n)
	}
	require.NoError(t, size(10))
	require.Equal(t, syscall.ENOMEM, s.post(t, 10, 1))
	require.NoError(t, s.Modify(&provider.SRQAttr{Limit: 10}, provider.SRQAttrLimit))
	require.NoError(t, size(11))
	for i := range uint64(6) {
		id, ok := s.next()
		require.True(t, ok)
		require.Equal(t, i, id, "in order")
	}
	require.Equal(t, syscall.EINVAL, s.Modify(&provider.SRQAttr{MaxWR: 5, Limit: 6}, provider.SRQAttrMaxWR|provider.SRQAttrLimit))
	require.NoError(t, s.Modify(&provider.SRQAttr{MaxWR: 5, Limit: 3}, provider.SRQAttrMaxWR|provider.SRQAttrLimit))
}

// Several post while queue pairs take and the size changes: each request is taken once.
func TestSRQRace(t *testing.T) {
	const posters, each = 3, 2000
	s := newSRQ(t, objects(false), provider.SRQAttr{MaxWR: 64, MaxSGE: 1})
	var wg sync.WaitGroup
	for p := range uint64(posters) {
		wg.Go(func() {
			for i := uint64(0); i < each; {
				if _, err := s.PostRecv([]provider.RecvWR{{ID: p*each + i}}, nil); err == nil {
					i++
				}
			}
		})
	}
	stop := make(chan struct{})
	var sizer sync.WaitGroup
	sizer.Go(func() {
		for n := uint32(64); ; n = 192 - n {
			select {
			case <-stop:
				return
			default:
				_ = s.Modify(&provider.SRQAttr{MaxWR: n, Limit: 5}, provider.SRQAttrMaxWR|provider.SRQAttrLimit)
			}
		}
	})
	var last [posters]uint64
	for n := 0; n < posters*each; {
		if id, ok := s.next(); ok {
			n++
			p := id / each
			require.Equal(t, last[p], id%each, "lost, or out of order")
			last[p]++
		}
	}
	close(stop)
	wg.Wait()
	sizer.Wait()
}
