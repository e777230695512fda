package rpc

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
)

// sealed gives b a right checksum, so that the decoder has to look at the rest.
func sealed(b []byte) []byte {
	b = append([]byte(nil), b...)
	if len(b) >= headerLen {
		binary.LittleEndian.PutUint32(b[crcOffset:], 0)
		binary.LittleEndian.PutUint32(b[crcOffset:], crc32.Checksum(b, crcTable))
	}
	return b
}

// FuzzMessage: what the decoder takes is what would be encoded, byte for byte but
// for the reserved field; what it refuses does no harm.
func FuzzMessage(f *testing.F) {
	d := desc{Remote: mr.Remote{Addr: 1 << 40, Len: 4096, RKey: 7}, rail: 1, flags: dirFrom, nonce: 5}
	f.Add(encode(header{typ: msgRequest, method: 1, id: 2, epoch: 3, deadline: 4, order: 5}, parts{descs: []desc{d, d}, body: []byte("body")}))
	f.Add(encode(header{typ: msgRequest, flags: flagIdempotent | flagStream}, parts{token: make([]byte, tokenLen), stream: true, offset: 1 << 50}))
	f.Add(encode(header{typ: msgResponse, flags: flagError, method: 5}, parts{body: []byte("not found")}))
	f.Add([]byte("Z"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m message
		if m.decode(b) == nil && len(b) >= headerLen && binary.LittleEndian.Uint32(sealed(b)[crcOffset:]) != binary.LittleEndian.Uint32(b[crcOffset:]) {
			t.Fatal("a wrong checksum was taken")
		}
		b = sealed(b)
		m = message{}
		if err := m.decode(b); err != nil {
			return
		}
		p := parts{token: m.token, body: m.body}
		for i := range int(m.header.descs) {
			p.descs = append(p.descs, m.desc(i))
		}
		if m.typ == msgRequest && m.flags&flagStream != 0 {
			p.stream, p.offset = true, m.offset
		}
		binary.LittleEndian.PutUint16(b[28:], 0)
		if again := encode(m.header, p); !bytes.Equal(again, sealed(b)) {
			t.Fatalf("decoded and encoded again:\n%x\n%x", b, again)
		}
	})
}

// FuzzDesc: a descriptor is its 24 bytes.
func FuzzDesc(f *testing.F) {
	f.Add(make([]byte, descLen))
	f.Add(bytes.Repeat([]byte{0xff}, descLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < descLen {
			return
		}
		var d desc
		d.get(b)
		out := make([]byte, descLen)
		d.put(out)
		if !bytes.Equal(out, b[:descLen]) {
			t.Fatalf("%x became %x", b[:descLen], out)
		}
		// A range within it never reaches out of it.
		off, n := uint64(binary.LittleEndian.Uint16(b)), int(binary.LittleEndian.Uint16(b[2:]))
		if r, err := d.Remote.Slice(off, n); err == nil && (r.Addr-d.Addr != off || off+uint64(n) > uint64(d.Len) || r.RKey != d.RKey) {
			t.Fatalf("%+v is outside of %+v", r, d.Remote)
		}
	})
}

// FuzzHello: limits of a hello that was taken are within bounds, and it means the
// same when it is said again.
func FuzzHello(f *testing.F) {
	h := hello{major: major, minor: 3, bootID: 1, epoch: 2, slot: 4096, calls: 16, mac: make([]byte, 32)}
	h.data = append(h.data, qp.Endpoint{}, qp.Endpoint{})
	f.Add(h.encode())
	h.mac = nil
	f.Add(append(h.encode(), 0xff, 0x7f, 2, 0, 1, 2)) // a field of a later version
	h.rails, h.first = 4, 3
	f.Add(h.encode())
	f.Add(h.encode()[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		var h hello
		if h.decode(b) != nil {
			return
		}
		if len(h.data) > maxData || h.rails > maxRails || h.slot > maxMessage || h.calls == 0 || h.calls > 1<<16 || h.major != major {
			t.Fatalf("a hello that should be refused: %+v", h)
		}
		var again hello
		if err := again.decode(h.encode()); err != nil {
			t.Fatal(err)
		}
		if again.bootID != h.bootID || again.epoch != h.epoch || again.nonce != h.nonce || h.rails > 1 && (again.rails != h.rails || again.first != h.first) || len(again.data) != len(h.data) || !bytes.Equal(again.mac, h.mac) {
			t.Fatalf("%+v became %+v", h, again)
		}
	})
}

// FuzzJoin: what a JOIN says is what it would be encoded as.
func FuzzJoin(f *testing.F) {
	f.Add(joinBody(1, 2, make([]qp.Endpoint, 3)))
	f.Add([]byte("1234"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, y, l, err := parseJoin(b)
		if err != nil {
			return
		}
		if len(l) == 0 || len(l) > maxData {
			t.Fatalf("%d endpoints were taken", len(l))
		}
		x2, y2, l2, err := parseJoin(joinBody(x, y, l))
		if err != nil || x2 != x || y2 != y || len(l2) != len(l) || l2[0] != l[0] {
			t.Fatalf("%d, %d, %v became %d, %d, %v, %v", x, y, l, x2, y2, l2, err)
		}
	})
}

// FuzzServer lets the bytes be a hostile client, beside one that is served. A frame
// takes some fifteen bytes, and the fuzzer kills what takes longer than 10 s by the
// clock on the wall: with its instruments, on a machine that has other work, some
// hundred frames come near that. TestHostileClient has long attacks.
func FuzzServer(f *testing.F) {
	f.Add([]byte("\x00"))
	f.Add(bytes.Repeat([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 60))
	f.Add(bytes.Repeat([]byte{1, 0, 3, 0, 0, 7}, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), 400)]
		rdmatest.Run(t, 1, func(t *testing.T, net *rdmatest.Network) { withHostile(t, net, b) })
	})
}
