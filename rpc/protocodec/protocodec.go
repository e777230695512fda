// Package protocodec lets package rpc call methods whose arguments and answers are
// protobuf messages:
//
//	var Stat = rpc.Method[*pb.StatRequest, *pb.StatReply]{Name: "block.stat", Codec: protocodec.Codec}
//
// # Ownership
//
// Messages are copied: the bytes of a call are not referred to once it has ended.
//
// # Concurrency
//
// Codec has no state; it may be used from any goroutine.
//
// # Blocking
//
// Nothing waits.
//
// # Cleanup
//
// There is nothing to close.
package protocodec

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/zrdma/zrdma/rpc"
)

// Codec encodes protobuf messages.
var Codec rpc.Codec = codec{}

type codec struct{}

func (codec) Append(dst []byte, v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("protocodec: %T is no protobuf message", v)
	}
	return proto.MarshalOptions{}.MarshalAppend(dst, m)
}

func (codec) Decode(data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("protocodec: %T is no protobuf message: the types of the rpc.Method must be pointers to messages", v)
	}
	return proto.Unmarshal(data, m)
}
