package rpc

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/rdmatest"
)

// Every place of the package that copies bytes of a caller's counts them (build,
// and Read and Write of streams; nothing else does). Bulk data never is among
// them: what is copied does not depend on how much data moves.
func TestBulkIsNotCopied(t *testing.T) {
	for name, mode := range map[string]BulkMode{"push": Push, "pull": Pull} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *rdmatest.Network) {
				b := newBoth(t, net, ServerConfig{}, echo)
				c := b.dial(Config{Bulk: mode})
				var client, server []uint64
				for _, n := range []int{4096, 1 << 20} {
					k, s := c.Stats().Copied, b.s.Stats().Copied
					buf := b.buf(n)
					r, err := c.Call(ctxFor(t), "get", []byte{7}, ReadInto(buf))
					require.NoError(t, err)
					got := r.Buf(0)
					r.Release()
					// The device wrote where the caller said: the memory is the same.
					p, err := got.Bytes()
					require.NoError(t, err)
					require.Equal(t, byte(7), p[0])
					require.Equal(t, buf.Region(), got.Region())
					r, err = c.Call(ctxFor(t), "put", nil, WriteFrom(got))
					require.NoError(t, err)
					r.Release()
					client, server = append(client, c.Stats().Copied-k), append(server, b.s.Stats().Copied-s)
				}
				require.Equal(t, client[0], client[1], "bytes copied by the client")
				require.Equal(t, server[0], server[1], "bytes copied by the server")
				require.LessOrEqual(t, client[1]+server[1], uint64(16), "arguments and answers")
				b.close(c)
			})
		})
	}
}
