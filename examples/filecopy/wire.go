package main

import (
	"errors"
	"io/fs"
	"time"

	"github.com/zrdma/zrdma/rpc"
)

// meta is a file as it is told to the server. Paths are slash-separated and below
// the roots of both sides.
type meta struct {
	Path string      `json:"path"`
	Mode fs.FileMode `json:"mode"` // permissions, and the type
	Size int64       `json:"size,omitempty"`
	Time time.Time   `json:"time"`
	Link string      `json:"link,omitempty"` // target of a symbolic link
	Sum  []byte      `json:"sum,omitempty"`  // SHA-256 of the content
}

// state is what the server has at a path.
type state struct {
	Have bool `json:"have"` // the file that was described, by size and time, or by its sum
}

type none struct{}

// Methods. A file of one part goes with put, a larger one with parts of a stream and
// then commit. All may be done twice.
var (
	check   = rpc.Method[meta, state]{Name: "file.check"}  // is the file there? With a sum: with this content
	makeDir = rpc.Method[meta, none]{Name: "file.mkdir"}   //
	setDir  = rpc.Method[meta, none]{Name: "file.setdir"}  // mode and time of a directory, when it is filled
	symlink = rpc.Method[meta, none]{Name: "file.symlink"} //
	put     = rpc.Method[meta, none]{Name: "file.put"}     // with WriteFrom, but for an empty file
	commit  = rpc.Method[meta, none]{Name: "file.commit"}  // verifies what the parts wrote, and puts it in its place
)

const (
	methodPart = "file.part" // a stream; its body is the path
	partSize   = 1 << 20
	slotSize   = 16 << 10 // a path of 4 KiB, escaped, and the target of a link fit
)

// coded gives errors of the file system codes that the client can tell apart.
func coded(err error) error {
	var e *rpc.Error
	switch {
	case err == nil, errors.As(err, &e):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return rpc.Errorf(rpc.NotFound, "%v", err)
	case errors.Is(err, fs.ErrPermission):
		return rpc.Errorf(rpc.PermissionDenied, "%v", err)
	case errors.Is(err, fs.ErrExist):
		return rpc.Errorf(rpc.AlreadyExists, "%v", err)
	}
	return rpc.Errorf(rpc.FailedPrecondition, "%v", err)
}
