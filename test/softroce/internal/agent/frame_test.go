package agent

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestFrames(t *testing.T) {
	var buf bytes.Buffer
	fw := frameWriter{w: &buf}
	for i, parts := range [][][]byte{nil, {[]byte("a")}, {{1}, []byte("bc")}, {make([]byte, maxFrame-headLen)}} {
		if err := fw.write(kindData, uint32(i), parts...); err != nil {
			t.Fatal(err)
		}
	}
	if err := fw.write(kindData, 9, make([]byte, maxFrame)); err == nil {
		t.Error("a frame over the limit was written")
	}
	for i, want := range []int{0, 1, 3, maxFrame - headLen} {
		f, err := readFrame(&buf)
		if err != nil || f.kind != kindData || f.id != uint32(i) || len(f.body) != want {
			t.Fatalf("frame %d: kind %d, id %d, %d bytes, %v", i, f.kind, f.id, len(f.body), err)
		}
	}
	if _, err := readFrame(&buf); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestShortFrames(t *testing.T) {
	var buf bytes.Buffer
	fw := frameWriter{w: &buf}
	if err := fw.write(kindExit, 7, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	whole := buf.Bytes()
	for n := 1; n < len(whole); n++ {
		if _, err := readFrame(bytes.NewReader(whole[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after %d of %d bytes: %v", n, len(whole), err)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 5, 1, 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 0, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := readFrame(bytes.NewReader(b))
		if err == nil && headLen+len(fr.body) > len(b) {
			t.Errorf("%d bytes of body out of %d", len(fr.body), len(b))
		}
	})
}
