package main

import (
	"context"
	"fmt"
	"math"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// gRPC-Go takes part twice. "gRPC-Go" is as it comes: default options, protobuf
// messages with one field of bytes. "gRPC-Go, raw" is the best we could make of it:
// wide windows, large buffers, server workers, and payloads.
//
// payload is a message of raw, which is the least that a codec can do: what is
// sent is not copied, and what comes is looked at where it lies or put into the
// memory of the caller.
type payload struct {
	out  []byte
	into []byte // received: copied here, when set
	got  []byte // received: the part of into that was filled
	ends [16]byte
	n    int
}

// raw passes bytes through gRPC as they are, without protobuf's share.
type raw struct{}

func (raw) Name() string { return "raw" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	p := v.(*payload)
	if len(p.out) == 0 {
		return nil, nil
	}
	return mem.BufferSlice{mem.SliceBuffer(p.out)}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	p := v.(*payload)
	p.n = data.Len()
	if p.into != nil {
		if p.n > len(p.into) {
			return fmt.Errorf("%d bytes for a buffer of %d", p.n, len(p.into))
		}
		p.got = p.into[:data.CopyTo(p.into)]
		return nil
	}
	if p.n >= block {
		copy(p.ends[:8], data[0].ReadOnlyData())
		last := data[len(data)-1].ReadOnlyData()
		if len(last) < 8 { // cut in the middle: rare
			last = data.Materialize()
		}
		copy(p.ends[8:], last[len(last)-8:])
		return nil
	}
	p.got = data.Materialize()
	return nil
}

const windows = 16 << 20

func serveGRPC(tuned bool) (string, func(), error) {
	encoding.RegisterCodecV2(raw{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	opts := []grpc.ServerOption{grpc.MaxRecvMsgSize(math.MaxInt32)}
	if tuned {
		opts = append(opts, grpc.ForceServerCodecV2(raw{}), grpc.InitialWindowSize(windows), grpc.InitialConnWindowSize(windows), grpc.WriteBufferSize(256<<10),
			grpc.ReadBufferSize(256<<10), grpc.NumStreamWorkers(4))
	}
	s := grpc.NewServer(opts...)
	kept := make([]byte, block)
	fill(kept)
	proto := func(f func(in []byte) ([]byte, error)) func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
		return func(_ any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.BytesValue)
			if err := dec(in); err != nil {
				return nil, err
			}
			out, err := f(in.Value)
			return &wrapperspb.BytesValue{Value: out}, err
		}
	}
	methods := []grpc.MethodDesc{
		{MethodName: "echo", Handler: proto(func(in []byte) ([]byte, error) { return in, nil })},
		{MethodName: "read", Handler: proto(func([]byte) ([]byte, error) { return kept, nil })},
		{MethodName: "write", Handler: proto(func(in []byte) ([]byte, error) { return nil, checkBlock(in, in, len(in), block) })},
	}
	if tuned {
		methods = rawMethods(kept)
	}
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "bench", HandlerType: (*any)(nil), Methods: methods}, nil)
	go s.Serve(l)
	return l.Addr().String(), s.Stop, nil
}

func rawMethods(kept []byte) []grpc.MethodDesc {
	unary := func(f func(in *payload) (*payload, error)) func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
		return func(_ any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(payload)
			if err := dec(in); err != nil {
				return nil, err
			}
			return f(in)
		}
	}
	return []grpc.MethodDesc{
		{MethodName: "echo", Handler: unary(func(in *payload) (*payload, error) { return &payload{out: in.got}, nil })},
		{MethodName: "read", Handler: unary(func(*payload) (*payload, error) { return &payload{out: kept}, nil })},
		{MethodName: "write", Handler: unary(func(in *payload) (*payload, error) {
			return &payload{}, checkBlock(in.ends[:8], in.ends[8:], in.n, block)
		})},
	}
}

type grpcClient struct {
	c   *grpc.ClientConn
	raw bool
}

func dialGRPC(addr string, tuned bool) (client, error) {
	opts := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32))}
	if tuned {
		opts = append(opts, grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})), grpc.WithInitialWindowSize(windows), grpc.WithInitialConnWindowSize(windows), grpc.WithWriteBufferSize(256<<10),
			grpc.WithReadBufferSize(256<<10))
	}
	c, err := grpc.NewClient(addr, opts...)
	if err != nil {
		return nil, err
	}
	return &grpcClient{c, tuned}, nil
}

func (g *grpcClient) close() error { return g.c.Close() }

func (g *grpcClient) caller(size int) (caller, error) {
	b := make([]byte, size)
	fill(b)
	if !g.raw {
		return &protoCaller{c: g.c, block: b}, nil
	}
	return &grpcCaller{c: g.c, block: b}, nil
}

type grpcCaller struct {
	c       *grpc.ClientConn
	body    [small]byte
	reply   [small]byte
	block   []byte
	in, out payload
}

func (*grpcCaller) close() {}

func (g *grpcCaller) echo(seq byte) error {
	g.out, g.in = payload{out: echoBody(g.body[:], seq)}, payload{into: g.reply[:]}
	if err := g.c.Invoke(context.Background(), "/bench/echo", &g.out, &g.in); err != nil {
		return err
	}
	return checkEcho(g.in.got, seq)
}

func (g *grpcCaller) read(size int) error {
	g.out, g.in = payload{}, payload{into: g.block}
	if err := g.c.Invoke(context.Background(), "/bench/read", &g.out, &g.in); err != nil {
		return err
	}
	return checkBlock(g.in.got, g.in.got, len(g.in.got), size)
}

func (g *grpcCaller) write(int) error {
	g.out, g.in = payload{out: g.block}, payload{}
	return g.c.Invoke(context.Background(), "/bench/write", &g.out, &g.in)
}

// protoCaller takes what protobuf gives it.
type protoCaller struct {
	c     *grpc.ClientConn
	body  [small]byte
	block []byte
}

func (*protoCaller) close() {}

func (g *protoCaller) call(method string, in []byte) ([]byte, error) {
	var out wrapperspb.BytesValue
	err := g.c.Invoke(context.Background(), method, &wrapperspb.BytesValue{Value: in}, &out)
	return out.Value, err
}

func (g *protoCaller) echo(seq byte) error {
	b, err := g.call("/bench/echo", echoBody(g.body[:], seq))
	if err != nil {
		return err
	}
	return checkEcho(b, seq)
}

func (g *protoCaller) read(size int) error {
	b, err := g.call("/bench/read", nil)
	if err != nil {
		return err
	}
	return checkBlock(b, b, len(b), size)
}

func (g *protoCaller) write(int) error {
	_, err := g.call("/bench/write", g.block)
	return err
}
