package rdmanet

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
)

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// What one end wrote before CloseWrite arrives whole and ends; the other half lives.
func TestHalfClose(t *testing.T) {
	places(t, func(t *testing.T, p *place) {
		a, b := p.pair(t, Config{})
		require.Equal(t, a.LocalAddr(), b.RemoteAddr())
		require.Equal(t, b.LocalAddr(), a.RemoteAddr())
		require.Equal(t, "rdma", a.LocalAddr().Network())
		_, _, err := net.SplitHostPort(a.LocalAddr().String())
		require.NoError(t, err)
		data := noise(3 << 20)
		want := sha256.Sum256(data)
		wrote := make(chan error, 1)
		go func() {
			_, err := a.Write(data)
			wrote <- errors.Join(err, a.CloseWrite(), a.CloseWrite())
		}()
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.NoError(t, <-wrote)
		require.Equal(t, want, sha256.Sum256(got))
		_, err = b.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		_, err = a.Write([]byte("more"))
		require.ErrorIs(t, err, syscall.EPIPE)
		_, err = b.Write([]byte("the other half"))
		require.NoError(t, err)
		require.NoError(t, b.Close())
		got, err = io.ReadAll(a)
		require.NoError(t, err)
		require.Equal(t, "the other half", string(got))
		require.Equal(t, Stats{Read: 14, Written: 3 << 20, Merged: a.Stats().Merged}, a.Stats())
		require.NoError(t, a.Close())
		require.NoError(t, a.Close(), "twice")
		_, err = a.Read(nil)
		require.ErrorIs(t, err, net.ErrClosed)
		require.ErrorIs(t, a.SetDeadline(time.Now()), net.ErrClosed)
	})
}

// Writes of every size, read in pieces of every size, are the same bytes.
func TestSizes(t *testing.T) {
	places(t, func(t *testing.T, p *place) {
		a, b := p.pair(t, Config{MessageSize: 4096, Window: 4})
		sizes := []int{1, 123, 124, 125, 4091, 4092, 4093, 8184, 8185, 100_000}
		var all []byte
		for i, n := range sizes {
			all = append(all, noise(n + i)[i:]...)
		}
		go func() {
			for i, n := range sizes {
				if _, err := a.Write(noise(n + i)[i:]); err != nil {
					t.Error(err)
				}
			}
			a.CloseWrite()
		}()
		require.NoError(t, iotest.TestReader(io.LimitReader(b, 1<<30), all))
	})
}

// io.Copy uses registered memory on both sides, and what a Reader or Writer says
// comes out.
func TestCopy(t *testing.T) {
	places(t, func(t *testing.T, p *place) {
		a, b := p.pair(t, Config{})
		data := noise(1 << 20)
		go func() {
			n, err := io.Copy(a, io.LimitReader(bytes.NewReader(data), 1<<30))
			if n != int64(len(data)) || err != nil {
				t.Error(n, err)
			}
			n, err = a.ReadFrom(iotest.ErrReader(os.ErrInvalid))
			if n != 0 || err != os.ErrInvalid {
				t.Error(n, err)
			}
			a.CloseWrite()
		}()
		var got bytes.Buffer
		got.ReadFrom(io.LimitReader(b, 1000)) // from the middle of a message on
		failed, err := io.Copy(writerFunc(func(p []byte) (int, error) { return got.Write(p[:1]) }), b)
		require.Equal(t, io.ErrShortWrite, err)
		require.EqualValues(t, 1, failed)
		n, err := io.Copy(&got, b)
		require.NoError(t, err)
		require.EqualValues(t, len(data)-1001, n)
		require.True(t, bytes.Equal(data, got.Bytes()))
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Small writes that wait for the peer become few messages; Write does not wait
// for the peer until its messages are used up.
func TestSmallWritesMerge(t *testing.T) {
	places(t, func(t *testing.T, p *place) {
		const n = 1000
		a, b := p.pair(t, Config{Window: 8})
		require.NoError(t, a.SetWriteDeadline(time.Now().Add(patience)))
		for i := range n { // nobody reads: this would hang if each were a message
			_, err := a.Write([]byte{byte(i)})
			require.NoError(t, err)
		}
		require.NoError(t, a.CloseWrite())
		s := a.Stats()
		require.GreaterOrEqual(t, s.Merged, uint64(n-8-2))
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Len(t, got, n)
		for i, x := range got {
			require.Equal(t, byte(i), x)
		}
		require.Less(t, b.QP().Stats().Received, uint64(30))
	})
}

// A peer that does not read stops the writer, after what the window holds.
func TestBackpressure(t *testing.T) {
	places(t, func(t *testing.T, p *place) {
		a, b := p.pair(t, Config{Window: 4, MessageSize: 4096})
		require.NoError(t, a.SetWriteDeadline(time.Now().Add(300*time.Millisecond)))
		data := noise(1 << 20)
		n, err := a.Write(data)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		var ne net.Error
		require.ErrorAs(t, err, &ne)
		require.True(t, ne.Timeout())
		require.LessOrEqual(t, n, 6*4096)
		// Exactly what was taken arrives, and the connection lives.
		require.NoError(t, a.SetWriteDeadline(time.Time{}))
		go func() { a.Write(data[n:]); a.CloseWrite() }()
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
	})
}

// Close says when the peer did not take what was written, and waits no longer.
func TestLinger(t *testing.T) {
	places(t, func(t *testing.T, p *place) {
		a, b := p.pair(t, Config{Window: 4, MessageSize: 4096, Linger: 50 * time.Millisecond})
		_ = a.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := a.Write(noise(1 << 20))
		require.Error(t, err)
		require.ErrorIs(t, a.Close(), ErrUndelivered)
		_, err = io.ReadAll(b)
		require.ErrorIs(t, err, syscall.ECONNRESET)
	})
}

// Many writers do not mix.
func TestManyWriters(t *testing.T) {
	places(t, func(t *testing.T, p *place) {
		a, b := p.pair(t, Config{Window: 4})
		const writers, each, size = 8, 20, 5000
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for range each {
					if _, err := a.Write(bytes.Repeat([]byte{byte(w)}, size)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		go func() { wg.Wait(); a.CloseWrite() }()
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Len(t, got, writers*each*size)
		count := map[byte]int{}
		for ; len(got) > 0; got = got[size:] {
			require.Equal(t, bytes.Repeat(got[:1], size), got[:size])
			count[got[0]]++
		}
		for w := range writers {
			require.Equal(t, each, count[byte(w)])
		}
	})
}
