package wire

import (
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

var writeVectors = flag.Bool("wire.vectors", false, "write the test vectors into docs/dpu-protocol.md")

const protocolDoc = "../../../docs/dpu-protocol.md"

func endpoint(t *testing.T) (e qp.Endpoint) {
	raw := make([]byte, qp.EndpointLen)
	copy(raw, []byte{0x51, 0x5a, 1, 16, 0, 1, 0, 0, 0, 0x10, 0, 0})
	copy(raw[16:], []byte{10: 0xff, 11: 0xff, 12: 10, 15: 2})
	copy(raw[32:], []byte{0x2a, 0, 0, 0, 0x15, 0xcd, 0x5b, 0, 3})
	require.NoError(t, e.UnmarshalBinary(raw))
	return e
}

var (
	aGet = Descriptor{Op: OpGet, Epoch: 3, ID: 7, Backend: 0, Timeout: 1_500_000, Addr: 0x7f0000001000, Len: 1 << 20, RKey: 0x1234, Key: "block-000001"}
	aPut = Descriptor{Op: OpPut, Epoch: 3, ID: 8, Backend: 2, Addr: 0x7f0000200000, Len: 65536, RKey: 0x5678, Sum: 0xdeadbeef,
		Flags: HasSum | Replay, Seq: 1<<32 + 5, Boot: 0x1122334455667789, Key: "k"}
	good   = Status{ID: 7, Epoch: 3, Size: 1 << 20, Sum: 0xcafef00d, Number: 41, Version: 0x0102030405060708}
	refuse = Status{ID: 8, Epoch: 3, Code: 8, Flags: NotBegun, Number: 42, Text: `tenant "vm7" has 64 operations under way, its quota`}
)

func message(h Header, body []byte) []byte { return Seal(append(h.Append(nil), body...)) }

func vectors(t *testing.T) (names []string, wire map[string][]byte) {
	wire = map[string][]byte{}
	add := func(name string, b []byte) {
		names = append(names, name)
		wire[name] = b
	}
	h := HelloBody{Slots: 128, Lease: 1_000_000, Data: endpoint(t), Tenant: "vm7"}
	for i := range h.Nonce {
		h.Nonce[i], h.Writer[i] = byte(i), byte(0xa0+i)
	}
	add(`HELLO, epoch 3: nonce 00..0f, writer a0..af, 128 operations, lease 1 s, tenant "vm7"`, message(Header{Type: Hello, Epoch: 3}, h.Append(nil)))
	w := WelcomeBody{Slots: 64, MaxBytes: 64 << 20, MaxBlock: 16 << 20, Data: endpoint(t)}
	w.Proof = Sign([]byte("secret"), "agent", h.Append(nil), w.Append(nil))
	add(`WELCOME: nonce 0, 64 operations, 64 MiB, blocks of 16 MiB, the proof of "secret"`, message(Header{Type: Welcome, Epoch: 3}, w.Append(nil)))
	p := ProofBody{Proof: Sign([]byte("secret"), "host", h.Append(nil), w.Append(nil)), Ring: mr.Remote{Addr: 0x7f0000000000, Len: 64 * EntryLen, RKey: 0x99}}
	add("PROOF: the host's, and a ring of 64 entries", message(Header{Type: Proof, Epoch: 3}, p.Append(nil)))
	add(`DESCRIPTORS: get "block-000001" into 1 MiB, 1.5 s remain; put "k" from 65536 bytes, sum, replay`,
		message(Header{Type: Descriptors, Epoch: 3, Count: 2}, aPut.Append(aGet.Append(nil))))
	add("CANCEL of operation 7", message(Header{Type: Cancel, Epoch: 3}, []byte{7, 0, 0, 0, 0, 0, 0, 0}))
	y := ByeBody{Code: 14, Text: "the agent ends"}
	add("BYE: UNAVAILABLE", message(Header{Type: Bye, Epoch: 3}, y.Append(nil)))
	e := make([]byte, EntryLen)
	good.Put(e)
	add("status entry 41: operation 7 is done, 1 MiB", e)
	e = make([]byte, EntryLen)
	refuse.Put(e)
	add("status entry 42: operation 8 was refused, RESOURCE_EXHAUSTED", e)
	return names, wire
}

func dump(b []byte) string {
	var s strings.Builder
	for i := 0; i < len(b); i += 16 {
		fmt.Fprintf(&s, "%03x % x\n", i, b[i:min(i+16, len(b))])
	}
	return s.String()
}

// The document has the bytes as this code writes them.
func TestVectors(t *testing.T) {
	names, wire := vectors(t)
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "%s:\n\n```\n%s```\n\n", n, dump(wire[n]))
	}
	doc, err := os.ReadFile(protocolDoc)
	require.NoError(t, err)
	const from, to = "<!-- vectors -->\n", "<!-- end of vectors -->\n"
	i, j := strings.Index(string(doc), from), strings.Index(string(doc), to)
	require.True(t, i > 0 && j > i, "the marks of the vectors are in the document")
	i += len(from)
	if *writeVectors {
		require.NoError(t, os.WriteFile(protocolDoc, []byte(string(doc[:i])+b.String()+string(doc[j:])), 0o644))
		return
	}
	require.Equal(t, b.String(), string(doc[i:j]), "the wire format has changed, or go test ./dpu/internal/wire -run Vectors -wire.vectors was not run")
}

// The document's bytes are understood: they are read from it, not from the code.
func TestVectorsAreUnderstood(t *testing.T) {
	doc, err := os.ReadFile(protocolDoc)
	require.NoError(t, err)
	names, _ := vectors(t)
	at := func(i int) []byte {
		_, rest, ok := strings.Cut(string(doc), names[i]+":\n\n```\n")
		require.True(t, ok, names[i])
		text, _, _ := strings.Cut(rest, "```")
		var b []byte
		for line := range strings.Lines(text) {
			p, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(line[4:]), " ", ""))
			require.NoError(t, err)
			b = append(b, p...)
		}
		return b
	}
	parse := func(i int, typ Type) []byte {
		m := at(i)
		h, body, err := Parse(m)
		require.NoError(t, err)
		require.Equal(t, typ, h.Type)
		require.Equal(t, uint32(3), h.Epoch)
		body = append([]byte(nil), body...)
		for k := range m { // any bit that falls over is found
			m[k] ^= 0x10
			_, _, err := Parse(m)
			require.Error(t, err, "byte %d of %s", k, names[i])
			m[k] ^= 0x10
		}
		return body
	}
	var h HelloBody
	said := parse(0, Hello)
	require.NoError(t, h.Decode(said))
	require.Equal(t, []any{"vm7", uint32(128), uint32(1_000_000), byte(0xaf), uint32(42)}, []any{h.Tenant, h.Slots, h.Lease, h.Writer[15], h.Data.QPN})
	var w WelcomeBody
	welcome := parse(1, Welcome)
	require.NoError(t, w.Decode(welcome))
	require.Equal(t, Sign([]byte("secret"), "agent", said, welcome), w.Proof)
	require.NotEqual(t, Sign([]byte("other"), "agent", said, welcome), w.Proof)
	var p ProofBody
	require.NoError(t, p.Decode(parse(2, Proof)))
	require.True(t, Same(Sign([]byte("secret"), "host", said, welcome), p.Proof))
	require.Equal(t, uint32(64*EntryLen), p.Ring.Len)
	var d Descriptor
	rest, err := d.Next(parse(3, Descriptors))
	require.NoError(t, err)
	require.Equal(t, aGet, d)
	rest, err = d.Next(rest)
	require.NoError(t, err)
	require.Equal(t, aPut, d)
	require.Empty(t, rest)
	var y ByeBody
	require.NoError(t, y.Decode(parse(5, Bye)))
	require.Equal(t, ByeBody{14, "the agent ends"}, y)
	for i, want := range []Status{good, refuse} {
		e := at(6 + i)
		var s Status
		require.NoError(t, s.Get(e))
		require.Equal(t, want, s)
		for k := range e {
			e[k] ^= 1
			require.Error(t, s.Get(e), "byte %d", k)
			e[k] ^= 1
		}
	}
}

func TestBadDescriptors(t *testing.T) {
	for name, x := range map[string]struct {
		change func(b []byte)
		want   string
		walk   bool // the next descriptor can be found
	}{
		"version":        {func(b []byte) { b[2] = 9 }, "version 9, this agent speaks 1", true},
		"operation":      {func(b []byte) { b[3] = 77 }, "operation 77", true},
		"no operation":   {func(b []byte) { b[3] = 0 }, "operation 0", true},
		"flags":          {func(b []byte) { b[45] = 0x80 }, "flags", true},
		"reserved":       {func(b []byte) { b[47] = 1 }, "flags", true},
		"overflow":       {func(b []byte) { le.PutUint64(b[24:], math.MaxUint64-100) }, "over the end of the address space", true},
		"no memory":      {func(b []byte) { le.PutUint32(b[32:], 0) }, "without memory", true},
		"key too long":   {func(b []byte) { b[46] = 255 }, "key of 255", true},
		"key too short":  {func(b []byte) { b[46] = 1 }, "key of 1", true},
		"size 0":         {func(b []byte) { b[0], b[1] = 0, 0 }, "of 0 bytes", false},
		"size odd":       {func(b []byte) { b[0] = 79 }, "of 79 bytes", false},
		"size too large": {func(b []byte) { b[1] = 0xff }, "in 80", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := aGet.Append(nil)
			x.change(b)
			var d Descriptor
			_, err := d.Next(b)
			require.ErrorContains(t, err, x.want)
			if x.walk {
				require.NotErrorIs(t, err, ErrMalformed)
				require.Equal(t, uint64(7), d.ID, "it can be answered")
				require.Equal(t, uint32(3), d.Epoch)
			} else {
				require.ErrorIs(t, err, ErrMalformed)
			}
		})
	}
	var d Descriptor
	_, err := d.Next(make([]byte, FixedLen-1))
	require.ErrorIs(t, err, ErrMalformed)
}

func TestTextOfStatusIsCut(t *testing.T) {
	s := Status{Text: strings.Repeat("ä", 300)}
	b := make([]byte, EntryLen)
	s.Put(b)
	var got Status
	require.NoError(t, got.Get(b))
	require.Equal(t, strings.Repeat("ä", MaxText/2), got.Text)
}

func TestImm(t *testing.T) {
	f, n := ParseImm(Imm(4095, 17))
	require.Equal(t, []int{4095, 17}, []int{f, n})
}

// FuzzDescriptors: nothing panics, and what is understood is written back as it was.
func FuzzDescriptors(f *testing.F) {
	f.Add(aGet.Append(nil))
	f.Add(aPut.Append(aGet.Append(nil)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			var d Descriptor
			rest, err := d.Next(b)
			if err == nil {
				one := b[:len(b)-len(rest)]
				again := d.Append(nil)
				if len(again) != len(one) {
					t.Fatalf("%x became %x", one, again)
				}
				n := FixedLen + len(d.Key) // behind it is padding, which nobody reads
				if string(again[:n]) != string(one[:n]) {
					t.Fatalf("%x became %x", one, again)
				}
				if d.Op.HasMemory() && d.Addr+uint64(d.Len) < d.Addr {
					t.Fatal("a range that wraps")
				}
			} else if rest == nil {
				return
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			b = rest
		}
	})
}

// FuzzMessage: nothing panics on any message, its checksum put right.
func FuzzMessage(f *testing.F) {
	_, wire := vectors(&testing.T{})
	for _, b := range wire {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Status
		if len(b) >= EntryLen && s.Get(b) == nil {
			again := make([]byte, EntryLen)
			s.Put(again)
			var x Status
			if err := x.Get(again); err != nil || x != s {
				t.Fatalf("%+v became %+v: %v", s, x, err)
			}
		}
		if len(b) < HeaderLen {
			_, _, _ = Parse(b)
			return
		}
		h, body, err := Parse(Seal(append([]byte(nil), b...)))
		if err != nil {
			return
		}
		switch h.Type {
		case Hello:
			var x HelloBody
			if x.Decode(body) == nil && string(x.Append(nil)) != string(body) {
				t.Fatal("another hello")
			}
		case Welcome:
			var x WelcomeBody
			if x.Decode(body) == nil && string(x.Append(nil)) != string(body) {
				t.Fatal("another welcome")
			}
		case Proof:
			var x ProofBody
			if x.Decode(body) == nil && string(x.Append(nil)) != string(body) {
				t.Fatal("another proof")
			}
		case Bye:
			_ = new(ByeBody).Decode(body)
		}
	})
}
