package compare

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
)

// Over a stream a block is asked for by 8 bytes, its number, and comes as it is, in
// the order of asking.
const requestLen = 8

// sender puts a block into the stream.
type sender interface {
	send(block uint64) error
	close() error
}

// streamServer answers requests with a sender.
type streamServer struct {
	e *env
	s sender
}

func (p *streamServer) run(context.Context) error {
	buf := make([]byte, 512*requestLen)
	have := 0
	for {
		n, err := p.e.conn.readSome(buf[have:])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		have += n
		whole := have / requestLen * requestLen
		for at := 0; at < whole; at += requestLen {
			if err := p.s.send(binary.LittleEndian.Uint64(buf[at:])); err != nil {
				return err
			}
		}
		have = copy(buf, buf[whole:have])
	}
}

func (p *streamServer) finish() {
	if f, ok := p.s.(finisher); ok {
		f.finish()
	}
}

func (p *streamServer) close() error { return p.s.close() }

// receiver takes the next block out of the stream and puts it into a place.
type receiver interface {
	receive(place int) ([]byte, error)
	close() error
}

// streamClient asks for blocks, with as many under way as the job says.
type streamClient struct {
	e *env
	r receiver
}

func (p *streamClient) run(ctx context.Context) error {
	n, depth := uint64(p.e.job.Blocks()), p.e.job.depth()
	ask := make([]byte, 0, depth*requestLen)
	for i := range depth {
		ask = binary.LittleEndian.AppendUint64(ask, uint64(i))
		p.e.rec.asked(i)
	}
	if err := p.e.conn.writeAll(ask); err != nil {
		return err
	}
	for i := uint64(0); i < n; i++ {
		place := int(i % uint64(depth))
		b, err := p.r.receive(place)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the server closed the data connection")
		}
		if err != nil {
			return err
		}
		if err := p.e.rec.arrived(place, i, b); err != nil {
			return err
		}
		if next := i + uint64(depth); next < n {
			p.e.rec.asked(place)
			if err := p.e.conn.writeAll(binary.LittleEndian.AppendUint64(ask[:0], next)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *streamClient) close() error { return p.r.close() }

// places are where a client has its blocks: depth of them, one after the other.
type places struct {
	mem   []byte
	block int
}

func (p *places) at(i int) []byte { return p.mem[i*p.block : (i+1)*p.block] }
