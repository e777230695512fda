package rpc

import (
	"encoding/hex"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/verbs"
)

var writeVectors = flag.Bool("rpc.vectors", false, "write the test vectors into docs/rpc-protocol.md")

const protocolDoc = "../docs/rpc-protocol.md"

// vectors are messages as they are on the wire, with what they say.
func vectors(t *testing.T) (names []string, wire map[string][]byte) {
	wire = map[string][]byte{}
	add := func(name string, b []byte) {
		names = append(names, name)
		wire[name] = b
	}
	var e qp.Endpoint
	raw := make([]byte, qp.EndpointLen)
	copy(raw, []byte{0x51, 0x5a, 1, 16, 0, 1, 0, 0, 0, 0x10, 0, 0})
	a := netip.MustParseAddr("::ffff:10.0.0.2").As16()
	copy(raw[16:], a[:])
	copy(raw[32:], []byte{0x2a, 0, 0, 0, 0x15, 0xcd, 0x5b, 0, 3})
	require.NoError(t, e.UnmarshalBinary(raw))
	h := hello{major: 1, minor: 0, bootID: 0x1122334455667788, epoch: 3, slot: 4096, calls: 256, data: []qp.Endpoint{e}}
	for i := range h.nonce {
		h.nonce[i] = byte(i)
	}
	add("HELLO of a client: version 1.0, boot id 0x1122334455667788, epoch 3, slots of 4096, 256 calls, nonce 00..0f, one data queue pair",
		encode(header{typ: msgHello, epoch: 3}, parts{body: h.encode()}))
	add(`REQUEST "echo" in place 5, generation 2, epoch 3, 1.5 s remain, body "hi"`,
		encode(header{typ: msgRequest, method: MethodID("echo"), id: 2<<32 | 5, epoch: 3, deadline: 1_500_000}, parts{body: []byte("hi")}))
	add(`REQUEST "block.read", idempotent, order key 7, part of a stream at 1 MiB, a window of 65536 bytes to write`,
		encode(header{typ: msgRequest, flags: flagIdempotent | flagStream, method: MethodID("block.read"), id: 1 << 32, epoch: 3, order: 7},
			parts{descs: []desc{{Remote: mr.Remote{Addr: 0x7f0000001000, Len: 65536, RKey: verbs.RKey(0x1234)}, flags: dirToPeer}},
				token: []byte("0123456789abcdef"), stream: true, offset: 1 << 20, body: []byte("k")}))
	add(`RESPONSE to it: 65536 bytes were pushed, the window was invalidated, body "ok"`,
		encode(header{typ: msgResponse, flags: flagInvalidated, id: 1 << 32, epoch: 3, order: 65536}, parts{body: []byte("ok")}))
	add(`RESPONSE: NOT_FOUND, "no such block"`,
		encode(header{typ: msgResponse, flags: flagError, method: uint32(NotFound), id: 2<<32 | 5, epoch: 3}, parts{body: []byte("no such block")}))
	add("CANCEL of place 5, generation 2", encode(header{typ: msgCancel, id: 2<<32 | 5, epoch: 3}, parts{}))
	add("CANCEL_ACK of it", encode(header{typ: msgCancelAck, id: 2<<32 | 5, epoch: 3}, parts{}))
	h.minor, h.rails, h.first = 1, 2, 0
	add("HELLO of a client of version 1.1 with two devices, else as above", encode(header{typ: msgHello, epoch: 3}, parts{body: h.encode()}))
	add("JOIN of rail 1, generation 4: device 1 with device 1", encode(header{typ: msgJoin, id: railID(1, 4), epoch: 3}, parts{body: joinBody(1, 1, []qp.Endpoint{e})}))
	add(`REQUEST "block.write" over rail 0, 262144 bytes to read, the second half over queue pair 1 of rail 1`,
		encode(header{typ: msgRequest, method: MethodID("block.write"), id: 3<<32 | 1, epoch: 3}, parts{descs: []desc{
			{Remote: mr.Remote{Addr: 0x7f0000001000, Len: 131072, RKey: verbs.RKey(0x1234)}, flags: dirFrom},
			{Remote: mr.Remote{Addr: 0x7f0000021000, Len: 131072, RKey: verbs.RKey(0x5678)}, flags: dirFrom, rail: 1<<8 | 1}}}))
	add("RESPONSE to it: rail 1 was lost", encode(header{typ: msgResponse, flags: flagError | flagRail, method: uint32(Unavailable), id: 3<<32 | 1, epoch: 3, order: 1}, parts{body: []byte("timed out")}))
	add("RAIL_DOWN of rail 1, generation 4", encode(header{typ: msgRailDown, id: railID(1, 4), epoch: 3}, parts{}))
	return names, wire
}

// The document has the messages as this code writes them.
func TestVectors(t *testing.T) {
	names, wire := vectors(t)
	var b strings.Builder
	for _, n := range names {
		var m message
		require.NoError(t, m.decode(wire[n]), n)
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
	require.Equal(t, b.String(), string(doc[i:j]), "the wire format has changed, or go test ./rpc -run Vectors -rpc.vectors was not run")
}

// The document's bytes are understood: they are read from it, not from the code.
func TestVectorsAreUnderstood(t *testing.T) {
	doc, err := os.ReadFile(protocolDoc)
	require.NoError(t, err)
	names, _ := vectors(t)
	at := func(i int) message {
		_, rest, ok := strings.Cut(string(doc), names[i]+":\n\n```\n")
		require.True(t, ok, names[i])
		text, _, _ := strings.Cut(rest, "```")
		var b []byte
		for line := range strings.Lines(text) {
			p, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(line[4:]), " ", ""))
			require.NoError(t, err)
			b = append(b, p...)
		}
		var m message
		require.NoError(t, m.decode(b))
		for k := range b { // any bit that falls over is found
			b[k] ^= 0x10
			var bad message
			require.Error(t, bad.decode(b), "byte %d of %s", k, names[i])
			b[k] ^= 0x10
		}
		return m
	}
	m := at(0)
	var h hello
	require.NoError(t, h.decode(m.body))
	require.Equal(t, []any{uint16(1), uint16(0), uint64(0x1122334455667788), uint32(3), uint32(4096), uint32(256), 1},
		[]any{h.major, h.minor, h.bootID, h.epoch, h.slot, h.calls, len(h.data)})
	require.Equal(t, uint32(42), h.data[0].QPN)
	m = at(1)
	require.Equal(t, "hi", string(m.body))
	require.EqualValues(t, 1_500_000, m.deadline)
	m = at(2)
	require.Equal(t, "0123456789abcdef", string(m.token))
	require.EqualValues(t, 1<<20, m.offset)
	require.EqualValues(t, 7, m.order)
	d := m.desc(0)
	require.Equal(t, mr.Remote{Addr: 0x7f0000001000, Len: 65536, RKey: 0x1234}, d.Remote)
	m = at(3)
	require.EqualValues(t, 65536, m.order)
	m = at(4)
	require.Equal(t, NotFound, Code(m.method))
	require.Equal(t, msgCancel, at(5).typ)
	require.Equal(t, msgCancelAck, at(6).typ)
	m = at(7)
	h = hello{}
	require.NoError(t, h.decode(m.body))
	require.Equal(t, []any{uint16(1), uint16(2), uint16(0)}, []any{h.minor, h.rails, h.first})
	m = at(8)
	a, b, l, err := parseJoin(m.body)
	require.NoError(t, err)
	require.Equal(t, []any{msgJoin, uint64(4<<32 | 1), uint16(1), uint16(1), 1}, []any{m.typ, m.id, a, b, len(l)})
	m = at(9)
	d = m.desc(1)
	require.Equal(t, []any{uint16(257), dirFrom, 131072}, []any{d.rail, int(d.flags), int(d.Len)})
	m = at(10)
	require.EqualValues(t, flagError|flagRail, m.flags)
	require.EqualValues(t, 1, m.order)
	require.Equal(t, msgRailDown, at(11).typ)
}

func dump(b []byte) string {
	var s strings.Builder
	for i := 0; i < len(b); i += 16 {
		fmt.Fprintf(&s, "%03x % x\n", i, b[i:min(i+16, len(b))])
	}
	return s.String()
}
