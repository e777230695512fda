package main

import (
	"net"
	"net/rpc"
)

// Bench is net/rpc's service; its messages are gob's.
type Bench struct{ kept []byte }

// Echo answers with its arguments.
func (*Bench) Echo(in *[]byte, out *[]byte) error {
	*out = *in
	return nil
}

// Read answers with a block.
func (b *Bench) Read(_ *int, out *[]byte) error {
	*out = b.kept
	return nil
}

// Write takes a block.
func (*Bench) Write(in *[]byte, _ *int) error { return checkBlock(*in, *in, len(*in), block) }

func serveNetRPC() (string, func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	b := &Bench{kept: make([]byte, block)}
	fill(b.kept)
	s := rpc.NewServer()
	if err := s.Register(b); err != nil {
		return "", nil, err
	}
	go s.Accept(l)
	return l.Addr().String(), func() { _ = l.Close() }, nil
}

type netRPCClient struct{ c *rpc.Client }

func dialNetRPC(addr string) (client, error) {
	c, err := rpc.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &netRPCClient{c}, nil
}

func (n *netRPCClient) close() error { return n.c.Close() }

func (n *netRPCClient) caller(size int) (caller, error) {
	b := make([]byte, size)
	fill(b)
	return &netRPCCaller{c: n.c, block: b}, nil
}

type netRPCCaller struct {
	c     *rpc.Client
	body  [small]byte
	block []byte
	none  int
}

func (*netRPCCaller) close() {}

func (n *netRPCCaller) echo(seq byte) error {
	in := echoBody(n.body[:], seq)
	out := make([]byte, 0, small)
	if err := n.c.Call("Bench.Echo", &in, &out); err != nil {
		return err
	}
	return checkEcho(out, seq)
}

func (n *netRPCCaller) read(size int) error {
	if err := n.c.Call("Bench.Read", &n.none, &n.block); err != nil {
		return err
	}
	return checkBlock(n.block, n.block, len(n.block), size)
}

func (n *netRPCCaller) write(int) error { return n.c.Call("Bench.Write", &n.block, &n.none) }
