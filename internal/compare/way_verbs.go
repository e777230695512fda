package compare

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zrdma/zrdma/verbs"
)

// rdmaWrite: the client asks with a message, the server's device writes.
var rdmaWrite = way{
	name: "rdma-write", title: "RDMA WRITE (package verbs)",
	how:   "the client asks with a SEND; the sender's device reads the mapped file and WRITEs, with an immediate, into the client's memory",
	serve: serveWrite, fetch: fetchWrite,
}

// rdmaRead: the client's device reads; the server does nothing.
var rdmaRead = way{
	name: "rdma-read", title: "RDMA READ (package verbs)",
	how:   "the client's device READs the mapped file of the sender, whose program does nothing",
	serve: serveRead, fetch: fetchRead,
}

// askLen is a request: the number of a block, and the place it goes to.
const askLen = 16

func (p *endpoint) ask(i int) []byte { return p.msgs.Bytes()[i*askLen : (i+1)*askLen] }

func (p *endpoint) postAskRecv(i int) error {
	_, err := p.qp.PostRecv([]verbs.RecvWR{{ID: uint64(i), SGList: []verbs.SGE{p.msgs.SGE(i*askLen, askLen)}}})
	return err
}

type writeServer struct{ *endpoint }

func serveWrite(_ context.Context, e *env) (part, error) {
	p, err := newEndpoint(e, e.src.mem, 0)
	if err != nil {
		return nil, err
	}
	for i := range e.job.depth() {
		if err := p.postAskRecv(i); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	if err := p.connect(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	if want := uint64(e.job.depth() * e.job.Block); p.peer.Len < want {
		return nil, errors.Join(fmt.Errorf("the client has room for %d bytes, not %d", p.peer.Len, want), p.close())
	}
	return writeServer{p}, nil
}

func (p writeServer) run(ctx context.Context) error {
	for {
		wcs, err := p.wait(ctx)
		if err != nil {
			return ended(ctx, err)
		}
		for i := range wcs {
			w := &wcs[i]
			if w.Opcode != verbs.WCRecv {
				continue
			}
			if w.ByteLen != askLen {
				return fmt.Errorf("a request of %d bytes", w.ByteLen)
			}
			b := p.ask(int(w.WRID))
			block, place := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:])
			if int(place) >= p.e.job.depth() {
				return fmt.Errorf("a request for place %d of %d", place, p.e.job.depth())
			}
			// The receive goes back before the answer, so that the next request finds one.
			if err := p.postAskRecv(int(w.WRID)); err != nil {
				return ended(ctx, err)
			}
			_, err := p.qp.PostSend([]verbs.SendWR{{
				Opcode: verbs.WRRDMAWriteWithImm, Flags: verbs.SendSignaled, Imm: place,
				SGList:     []verbs.SGE{p.data.SGE(int(p.e.src.offset(block)), p.e.job.Block)},
				RemoteAddr: p.peer.Addr + uint64(place)*uint64(p.e.job.Block), RKey: verbs.RKey(p.peer.RKey),
			}})
			if err != nil {
				return ended(ctx, err)
			}
		}
	}
}

// ended is nil for an error that came because the run was over.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

type writeClient struct {
	*endpoint
	places
}

func fetchWrite(_ context.Context, e *env) (_ part, err error) {
	c, err := newDirect(e, verbs.AccessLocalWrite|verbs.AccessRemoteWrite)
	if err != nil {
		return nil, err
	}
	for range e.job.depth() {
		if err := c.postEmptyRecv(); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	if err := c.connect(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return &writeClient{c.endpoint, c.places}, nil
}

// direct is a client whose places the device writes to.
type direct struct {
	*endpoint
	places
}

func newDirect(e *env, access verbs.AccessFlags) (direct, error) {
	pl, err := newPlaces(e.job)
	if err != nil {
		return direct{}, err
	}
	p, err := newEndpoint(e, pl.mem, access)
	if err != nil {
		return direct{}, errors.Join(err, pl.unmap())
	}
	return direct{p, pl}, nil
}

func (d *direct) close() error { return errors.Join(d.endpoint.close(), d.unmap()) }

func (p *endpoint) postEmptyRecv() error {
	_, err := p.qp.PostRecv([]verbs.RecvWR{{}})
	return err
}

func (c *writeClient) request(block uint64, place int) error {
	b := c.ask(place)
	binary.LittleEndian.PutUint64(b, block)
	binary.LittleEndian.PutUint32(b[8:], uint32(place))
	c.e.rec.asked(place)
	_, err := c.qp.PostSend([]verbs.SendWR{{Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: []verbs.SGE{c.msgs.SGE(place*askLen, askLen)}}})
	return err
}

func (c *writeClient) run(ctx context.Context) error {
	n, depth := uint64(c.e.job.Blocks()), c.e.job.depth()
	block := make([]uint64, depth)
	next := uint64(0)
	for ; next < uint64(depth); next++ {
		block[next] = next
		if err := c.request(next, int(next)); err != nil {
			return err
		}
	}
	for done := uint64(0); done < n; {
		wcs, err := c.wait(ctx)
		if err != nil {
			return err
		}
		for i := range wcs {
			w := &wcs[i]
			if w.Opcode != verbs.WCRecvRDMAWithImm {
				continue
			}
			place := int(w.Imm())
			if place >= depth {
				return fmt.Errorf("the server wrote to place %d of %d", place, depth)
			}
			if err := c.e.rec.arrived(place, block[place], c.at(place)); err != nil {
				return err
			}
			done++
			if err := c.postEmptyRecv(); err != nil {
				return err
			}
			if next < n {
				block[place] = next
				if err := c.request(next, place); err != nil {
					return err
				}
				next++
			}
		}
	}
	return nil
}

func (c *writeClient) close() error { return errors.Join(c.endpoint.close(), c.unmap()) }

type readServer struct{ *endpoint }

func serveRead(_ context.Context, e *env) (part, error) {
	p, err := newEndpoint(e, e.src.mem, verbs.AccessRemoteRead)
	if err != nil {
		return nil, err
	}
	if err := p.connect(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return readServer{p}, nil
}

func (p readServer) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

type readClient struct{ direct }

func fetchRead(_ context.Context, e *env) (part, error) {
	c, err := newDirect(e, verbs.AccessLocalWrite)
	if err != nil {
		return nil, err
	}
	if err := c.connect(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	if want := uint64(e.job.distinct() * e.job.Block); c.peer.Len < want {
		return nil, errors.Join(fmt.Errorf("the server has %d bytes, not %d", c.peer.Len, want), c.close())
	}
	return &readClient{c}, nil
}

func (c *readClient) post(block uint64, place int) error {
	c.e.rec.asked(place)
	size := uint64(c.e.job.Block)
	_, err := c.qp.PostSend([]verbs.SendWR{{
		ID: block, Opcode: verbs.WRRDMARead, Flags: verbs.SendSignaled, SGList: []verbs.SGE{c.data.SGE(place*int(size), int(size))},
		RemoteAddr: c.peer.Addr + block%uint64(c.e.job.distinct())*size, RKey: verbs.RKey(c.peer.RKey),
	}})
	return err
}

func (c *readClient) run(ctx context.Context) error {
	n, depth := uint64(c.e.job.Blocks()), uint64(c.e.job.depth())
	for i := range depth {
		if err := c.post(i, int(i)); err != nil {
			return err
		}
	}
	for done := uint64(0); done < n; {
		wcs, err := c.wait(ctx)
		if err != nil {
			return err
		}
		for k := range wcs {
			i := wcs[k].WRID
			place := int(i % depth)
			if err := c.e.rec.arrived(place, i, c.at(place)); err != nil {
				return err
			}
			done++
			if next := i + depth; next < n {
				if err := c.post(next, place); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
