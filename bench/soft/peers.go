package main

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
)

// tcpPair is a connection over loopback.
func tcpPair() (a, b net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	b, err = l.Accept()
	return a, b, err
}

func streamTCP(size, count int) error {
	a, b, err := tcpPair()
	if err != nil {
		return err
	}
	defer a.Close()
	defer b.Close()
	read := make(chan error, 1)
	go func() {
		buf := make([]byte, size)
		for range count {
			if _, err := io.ReadFull(b, buf); err != nil {
				read <- err
				return
			}
		}
		read <- nil
	}()
	buf := make([]byte, size)
	for range count {
		if _, err := a.Write(buf); err != nil {
			return err
		}
	}
	return <-read
}

func pingPongTCP(size, count int) ([]time.Duration, error) {
	a, b, err := tcpPair()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	defer b.Close()
	go func() {
		buf := make([]byte, size)
		for {
			if _, err := io.ReadFull(b, buf); err != nil {
				return
			}
			if _, err := b.Write(buf); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, size)
	rtt := make([]time.Duration, 0, count)
	for range count {
		t := time.Now()
		if _, err := a.Write(buf); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(a, buf); err != nil {
			return nil, err
		}
		rtt = append(rtt, time.Since(t))
	}
	return rtt, nil
}

// raw passes bytes through gRPC as they are, without protobuf's share.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (raw) Unmarshal(b []byte, v any) error { *v.(*[]byte) = b; return nil }
func (raw) Name() string                    { return "raw" }

// grpcService echoes what is shorter than 4 KiB and swallows the rest.
func grpcPair(size int) (*grpc.ClientConn, func(), error) {
	encoding.RegisterCodec(raw{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	s := grpc.NewServer(grpc.MaxRecvMsgSize(2*size+1<<20), grpc.ForceServerCodec(raw{}),
		grpc.UnknownServiceHandler(func(_ any, st grpc.ServerStream) error {
			for {
				var b []byte
				if err := st.RecvMsg(&b); errors.Is(err, io.EOF) {
					b = []byte{0}
					return st.SendMsg(&b)
				} else if err != nil {
					return err
				}
				if len(b) < 4096 {
					if err := st.SendMsg(&b); err != nil {
						return err
					}
				}
			}
		}))
	go s.Serve(l)
	c, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		s.Stop()
		return nil, nil, err
	}
	return c, func() { c.Close(); s.Stop() }, nil
}

var both = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

func streamGRPC(size, count int) error {
	c, stop, err := grpcPair(size)
	if err != nil {
		return err
	}
	defer stop()
	st, err := c.NewStream(context.Background(), both, "/bench/sink")
	if err != nil {
		return err
	}
	buf := make([]byte, size)
	for range count {
		if err := st.SendMsg(&buf); err != nil {
			return err
		}
	}
	if err := st.CloseSend(); err != nil {
		return err
	}
	var end []byte
	return st.RecvMsg(&end)
}

// pingPongGRPC uses one stream: a unary call costs more.
func pingPongGRPC(size, count int) ([]time.Duration, error) {
	c, stop, err := grpcPair(size)
	if err != nil {
		return nil, err
	}
	defer stop()
	st, err := c.NewStream(context.Background(), both, "/bench/echo")
	if err != nil {
		return nil, err
	}
	buf := make([]byte, size)
	rtt := make([]time.Duration, 0, count)
	for range count {
		t := time.Now()
		if err := st.SendMsg(&buf); err != nil {
			return nil, err
		}
		var in []byte
		if err := st.RecvMsg(&in); err != nil {
			return nil, err
		}
		rtt = append(rtt, time.Since(t))
	}
	return rtt, nil
}
