package hub

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"
)

// Pcap writes frames in the classic pcap format, with nanoseconds, as Wireshark
// and tcpdump read it.
type Pcap struct {
	mu  sync.Mutex // guards w and err
	w   *bufio.Writer
	err error
}

// NewPcap writes the file's header. The caller keeps w and closes it after Flush.
func NewPcap(w io.Writer) (*Pcap, error) {
	b := make([]byte, 24)
	binary.LittleEndian.PutUint32(b, 0xa1b23c4d) // nanoseconds
	binary.LittleEndian.PutUint16(b[4:], 2)
	binary.LittleEndian.PutUint16(b[6:], 4)
	binary.LittleEndian.PutUint32(b[16:], maxFrame)
	binary.LittleEndian.PutUint32(b[20:], 1) // LINKTYPE_ETHERNET
	p := &Pcap{w: bufio.NewWriterSize(w, 64<<10)}
	if _, err := p.w.Write(b); err != nil {
		return nil, fmt.Errorf("hub: pcap: %w", err)
	}
	return p, p.Flush()
}

func (p *Pcap) frame(at time.Time, frame []byte) {
	var b [16]byte
	binary.LittleEndian.PutUint32(b[:], uint32(at.Unix()))
	binary.LittleEndian.PutUint32(b[4:], uint32(at.Nanosecond()))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(frame)))
	binary.LittleEndian.PutUint32(b[12:], uint32(len(frame)))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		_, p.err = p.w.Write(b[:])
	}
	if p.err == nil {
		_, p.err = p.w.Write(frame)
	}
}

// Flush writes out what is buffered and returns the first error there was.
func (p *Pcap) Flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = p.w.Flush()
	}
	if p.err != nil {
		return fmt.Errorf("hub: pcap: %w", p.err)
	}
	return nil
}
