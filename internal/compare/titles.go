package compare

// What the ways of Linux are, said on every system.
const (
	uringTitle = "io_uring, registered buffers, SEND_ZC"
	uringHow   = "a chain of READ_FIXED from the file into a registered buffer and SEND_ZC from there to TCP; READ_FIXED from TCP into a registered buffer"

	mmapTitle = "mmap and MSG_ZEROCOPY"
	mmapHow   = "send(2) with MSG_ZEROCOPY from the mapped file to TCP; read(2) from TCP"

	sendfileTitle = "sendfile"
	sendfileHow   = "sendfile(2) from the file to TCP; read(2) from TCP"

	spliceTitle = "splice"
	spliceHow   = "splice(2) from the file into a pipe and from the pipe to TCP; splice(2) from TCP into a pipe and from the pipe into a file in memory, which is mapped"
)
