// Package compare moves the same blocks from one process to another in every way
// that the machine knows, and measures what each costs: the engine of `zrdma
// compare`.
//
// A Server has the blocks, in a file or in memory, and serves them; Run is the
// client, which asks for them, puts each into its place, and verifies it. Both
// speak over TCP about what is done (proto.go); each way then moves the data
// itself, over a second connection or over an RDMA device. docs/compare.md says
// what is counted and how.
package compare
