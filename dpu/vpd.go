package dpu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// VPD is PCI vital product data: what a card says of itself.
type VPD struct {
	Product string            // the identifier string
	Fields  map[string]string // read-only keywords: PN, SN, EC, V0...; not RV
}

// Tags of the PCI local bus specification, appendix I.
const (
	vpdID  = 0x82
	vpdR   = 0x90
	vpdW   = 0x91
	vpdEnd = 0x78
)

var errVPD = errors.New("dpu: vital product data")

// ParseVPD reads vital product data. What could be read is returned with an
// error too; a wrong checksum returns nothing, since then no field can be trusted.
func ParseVPD(b []byte) (VPD, error) {
	v := VPD{Fields: map[string]string{}}
	for off := 0; ; {
		if off >= len(b) {
			return v, fmt.Errorf("%w: no end tag in %d bytes", errVPD, len(b))
		}
		tag := b[off]
		if tag == vpdEnd {
			return v, nil
		}
		if tag&0x80 == 0 { // a small resource: its length is in the tag
			off += 1 + int(tag&7)
			continue
		}
		if off+3 > len(b) {
			return v, fmt.Errorf("%w: cut off in a tag at %d", errVPD, off)
		}
		n, start := int(binary.LittleEndian.Uint16(b[off+1:])), off+3
		if start+n > len(b) {
			return v, fmt.Errorf("%w: tag %#x at %d has %d bytes, %d are there", errVPD, tag, off, n, len(b)-start)
		}
		body := b[start : start+n]
		switch tag {
		case vpdID:
			v.Product = printable(body)
		case vpdR:
			if err := v.keywords(b, start, n); err != nil {
				return v, err
			}
		}
		off = start + n
	}
}

func (v *VPD) keywords(b []byte, start, n int) error {
	for off, end := start, start+n; off < end; {
		if off+3 > end {
			return fmt.Errorf("%w: cut off in a keyword at %d", errVPD, off)
		}
		key, size := string(b[off:off+2]), int(b[off+2])
		if off+3+size > end {
			return fmt.Errorf("%w: keyword %q at %d has %d bytes, %d are there", errVPD, key, off, size, end-off-3)
		}
		if key == "RV" {
			// All bytes up to and with the first of RV add to 0.
			var sum byte
			for _, c := range b[:min(off+4, len(b))] {
				sum += c
			}
			if size < 1 || sum != 0 {
				*v = VPD{Fields: map[string]string{}}
				return fmt.Errorf("%w: wrong checksum", errVPD)
			}
		} else if s := printable(b[off+3 : off+3+size]); s != "" {
			v.Fields[key] = s
		}
		off += 3 + size
	}
	return nil
}

// printable is a field as text; "" when it is not.
func printable(b []byte) string {
	s := strings.Trim(string(b), " \x00")
	for _, r := range s {
		if r < ' ' || r > '~' {
			return ""
		}
	}
	return s
}
