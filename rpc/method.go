package rpc

import (
	"context"
	"encoding/json"
	"reflect"
)

// Codec turns arguments and answers into bytes and back. It may be used from any
// goroutine.
type Codec interface {
	// Append appends v to dst.
	Append(dst []byte, v any) ([]byte, error)
	// Decode fills v, a pointer, from data, and keeps none of it.
	Decode(data []byte, v any) error
}

// JSON is the codec that package encoding/json makes.
var JSON Codec = jsonCodec{}

type jsonCodec struct{}

func (jsonCodec) Append(dst []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(dst, b...), err
}

func (jsonCodec) Decode(data []byte, v any) error { return json.Unmarshal(data, v) }

// Method is a method with arguments and an answer of Go types. Client and server
// declare it once, for both:
//
//	var Stat = rpc.Method[StatRequest, StatReply]{Name: "block.stat"}
//
// Types may be pointers to structs, as protobuf has them.
type Method[Req, Resp any] struct {
	Name  string
	Codec Codec // nil: JSON. Package protocodec has one for protobuf
}

func (m Method[Req, Resp]) codec() Codec {
	if m.Codec == nil {
		return JSON
	}
	return m.Codec
}

// Call calls the method. Buffers of opts come back by CallBufs only: here they are
// released.
func (m Method[Req, Resp]) Call(ctx context.Context, c *Client, req Req, opts ...Option) (Resp, error) {
	resp, r, err := m.CallBufs(ctx, c, req, opts...)
	r.Release()
	return resp, err
}

// CallBufs is Call for calls with bulk data: Reply.Buf has the new rights to the
// buffers. The caller releases the Reply.
func (m Method[Req, Resp]) CallBufs(ctx context.Context, c *Client, req Req, opts ...Option) (resp Resp, _ *Reply, err error) {
	body, err := m.codec().Append(nil, req)
	if err != nil {
		ReleaseAll(opts)
		return resp, nil, &Error{Code: InvalidArgument, Method: m.Name, Message: "encoding the arguments", Cause: err}
	}
	r, err := c.Call(ctx, m.Name, body, opts...)
	if err != nil {
		return resp, nil, err
	}
	if err := decode(m.codec(), r.Body, &resp); err != nil {
		r.Release()
		return resp, nil, &Error{Code: Internal, Method: m.Name, Message: "decoding the answer", Cause: err}
	}
	return resp, r, nil
}

// Handle registers the handler of the method. What it returns is the answer; it
// must not call ServerCall.Reply. Arguments that do not decode are refused with
// InvalidArgument.
func (m Method[Req, Resp]) Handle(s *Server, h func(ctx context.Context, c *ServerCall, req Req) (Resp, error)) {
	s.Handle(m.Name, func(ctx context.Context, c *ServerCall) error {
		var req Req
		if err := decode(m.codec(), c.Body, &req); err != nil {
			return Errorf(InvalidArgument, "the arguments do not decode: %v", err)
		}
		resp, err := h(ctx, c, req)
		if err != nil {
			return err
		}
		body, err := m.codec().Append(nil, resp)
		if err != nil {
			return Errorf(Internal, "encoding the answer: %v", err)
		}
		return c.Reply(body)
	})
}

// decode fills *v; where that is a nil pointer, what it will point to.
func decode[T any](c Codec, data []byte, v *T) error {
	if p := reflect.ValueOf(v).Elem(); p.Kind() == reflect.Pointer {
		p.Set(reflect.New(p.Type().Elem()))
		return c.Decode(data, p.Interface())
	}
	return c.Decode(data, v)
}
