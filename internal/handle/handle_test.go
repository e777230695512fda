package handle

import (
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func open(t *testing.T, kind string, parents ...*Handle) *Handle {
	t.Helper()
	h := &Handle{}
	require.NoError(t, h.Init(kind, parents...))
	t.Cleanup(func() { h.Close(func() error { return nil }) })
	return h
}

func ok() error { return nil }

func TestCloseRunsDestroyOnce(t *testing.T) {
	h := open(t, "thing")
	n := 0
	destroy := func() error { n++; return nil }
	require.NoError(t, h.Enter())
	h.Exit()
	require.NoError(t, h.Close(destroy))
	require.NoError(t, h.Close(destroy), "a second Close is nil")
	require.Equal(t, 1, n)
	require.ErrorIs(t, h.Enter(), ErrClosed)
	require.ErrorIs(t, h.Enter(), net.ErrClosed)
	require.True(t, h.Closed())
}

func TestFailedDestroyLeavesItOpen(t *testing.T) {
	h := open(t, "thing")
	boom := errors.New("boom")
	require.ErrorIs(t, h.Close(func() error { return boom }), boom)
	require.False(t, h.Closed())
	require.NoError(t, h.Enter())
	h.Exit()
	require.NoError(t, h.Close(ok))
}

func TestParentWaitsForChildren(t *testing.T) {
	p1, p2 := open(t, "parent"), open(t, "parent")
	c := open(t, "child", p1, nil, p2)
	extra := open(t, "late parent")
	require.NoError(t, c.AddParent(extra))
	for _, p := range []*Handle{p1, p2, extra} {
		require.Equal(t, 1, p.Children())
		err := p.Close(func() error { t.Error("destroyed under a child"); return nil })
		require.ErrorIs(t, err, ErrInUse)
		require.ErrorContains(t, err, "1 open object(s) were made from it (1 child)")
		require.NoError(t, p.Enter(), "a refused Close changes nothing")
		p.Exit()
	}
	require.NoError(t, c.Close(ok))
	for _, p := range []*Handle{p1, p2, extra} {
		require.NoError(t, p.Close(ok))
	}
}

func TestBirthUnderClosedParent(t *testing.T) {
	alive, dead := open(t, "parent"), open(t, "parent")
	require.NoError(t, dead.Close(ok))
	before := len(Live())
	h := &Handle{}
	require.ErrorIs(t, h.Init("child", alive, dead), ErrClosed)
	require.Zero(t, alive.Children(), "the refused birth must give the living parent back")
	require.Len(t, Live(), before)
}

func TestAbandon(t *testing.T) {
	p := open(t, "parent")
	before := len(Live())
	h := &Handle{}
	require.NoError(t, h.Init("child", p))
	h.Abandon()
	require.Zero(t, p.Children())
	require.Len(t, Live(), before)
	require.ErrorIs(t, h.Enter(), ErrClosed)
	require.NoError(t, h.Close(func() error { t.Error("destroyed what was never made"); return nil }))
}

func TestTooManyParents(t *testing.T) {
	var all []*Handle
	for range maxParents + 1 {
		all = append(all, open(t, "parent"))
	}
	h := &Handle{}
	require.ErrorContains(t, h.Init("child", all...), "more than")
	for _, p := range all {
		require.Zero(t, p.Children())
	}
	h = open(t, "child", all[:maxParents]...)
	require.ErrorContains(t, h.AddParent(all[maxParents]), "more than")
	require.Zero(t, all[maxParents].Children())
}

// Close waits until every user has left the gate, and lets none in afterwards.
func TestCloseAgainstUsers(t *testing.T) {
	for range 200 {
		h := open(t, "thing")
		var destroyed atomic.Bool
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for h.Enter() == nil {
					if destroyed.Load() {
						t.Error("a user is inside a destroyed object")
					}
					h.Exit()
				}
			})
		}
		runtime.Gosched()
		require.NoError(t, h.Close(func() error { destroyed.Store(true); return nil }))
		wg.Wait()
	}
}

// A child is born or the parent closes; never both.
func TestBirthAgainstClose(t *testing.T) {
	for range 2000 {
		p := open(t, "parent")
		born := make(chan *Handle)
		go func() {
			c := &Handle{}
			if c.Init("child", p) != nil {
				c = nil
			}
			born <- c
		}()
		err := p.Close(ok)
		c := <-born
		if err == nil {
			require.Nil(t, c, "a child of a closed parent")
			continue
		}
		require.ErrorIs(t, err, ErrInUse)
		require.NotNil(t, c)
		require.NoError(t, c.Close(ok))
		require.NoError(t, p.Close(ok))
	}
}

func TestConcurrentClose(t *testing.T) {
	h := open(t, "thing")
	var n atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := h.Close(func() error { n.Add(1); return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, n.Load())
}

type object struct {
	h Handle
	_ [64]byte
}

// construct stands for a constructor, which the stack of a report leaves out.
//
//go:noinline
func construct() *object {
	o := &object{}
	if o.h.Init("dropped thing") != nil {
		panic("Init")
	}
	Watch(o, &o.h)
	return o
}

//go:noinline
func drop(closeIt bool) {
	o := construct()
	if closeIt {
		o.h.Close(ok)
	}
}

func TestDroppedObjectIsReported(t *testing.T) {
	got := make(chan string, 10)
	OnLeak(func(kind, stack string) { got <- kind + "\n" + stack })
	defer OnLeak(nil)
	before := len(Live())
	drop(true)
	drop(false)
	require.Len(t, Live(), before+1)
	var report string
	for end := time.Now().Add(10 * time.Second); report == ""; {
		runtime.GC()
		select {
		case report = <-got:
		case <-time.After(10 * time.Millisecond):
			require.True(t, time.Now().Before(end), "the dropped object was never reported")
		}
	}
	require.Contains(t, report, "dropped thing")
	require.Contains(t, report, "handle.drop", "the stack must name who created it")
	require.Len(t, Live(), before)
	runtime.GC()
	require.Empty(t, got, "the closed object must not be reported")
}

func TestLiveNamesTheCreator(t *testing.T) {
	h := open(t, "a thing to find")
	require.Contains(t, strings.Join(Live(), "\n"), "a thing to find")
	require.NoError(t, h.Close(ok))
	require.NotContains(t, strings.Join(Live(), "\n"), "a thing to find")
}
