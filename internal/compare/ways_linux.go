package compare

import "github.com/zrdma/zrdma/internal/iouring"

func kernelWays() []way {
	return []way{
		{name: "io_uring", title: uringTitle, how: uringHow,
			can:   func() error { return iouring.Probe(iouring.OpReadFixed, iouring.OpSendZC) },
			serve: serveUring, fetch: fetchStream(newUringReader)},
		{name: "mmap-zerocopy", title: mmapTitle, how: mmapHow, serve: serveStream(newMapSender), fetch: fetchStream(newReader)},
		{name: "sendfile", title: sendfileTitle, how: sendfileHow, serve: serveStream(newFileSender), fetch: fetchStream(newReader)},
		{name: "splice", title: spliceTitle, how: spliceHow, serve: serveStream(newSpliceSender), fetch: fetchStream(newSpliceReader)},
	}
}
