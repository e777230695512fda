package hub

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"
)

func TestPcap(t *testing.T) {
	var buf bytes.Buffer
	p, err := NewPcap(&buf)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1700000000, 123456789)
	p.frame(at, frame(addr(1), addr(0), 1))
	p.frame(at, make([]byte, 9014))
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	b := buf.Bytes()
	le := binary.LittleEndian
	if le.Uint32(b) != 0xa1b23c4d || le.Uint16(b[4:]) != 2 || le.Uint16(b[6:]) != 4 || le.Uint32(b[20:]) != 1 {
		t.Errorf("header % x", b[:24])
	}
	if le.Uint32(b[24:]) != 1700000000 || le.Uint32(b[28:]) != 123456789 || le.Uint32(b[32:]) != 18 || le.Uint32(b[36:]) != 18 {
		t.Errorf("record % x", b[24:40])
	}
	if want := 24 + 16 + 18 + 16 + 9014; len(b) != want {
		t.Errorf("%d bytes, want %d", len(b), want)
	}
}

type full struct{}

var errFull = errors.New("disk full")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestPcapReportsErrors(t *testing.T) {
	if _, err := NewPcap(full{}); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
}
