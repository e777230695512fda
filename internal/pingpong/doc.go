// Package pingpong bounces verified messages between two ends: the engine of
// `zrdma ping`.
//
// The ends find each other through one line each way on a TCP connection (see
// Hello), which stays open while they play: its end is the end of the session. Or
// the connection manager brings them together, with the same line as private data.
// Messages go over a reliable connection, or as datagrams, which may be lost. Only
// one message is under way at a time. RPC is the same with calls of package rpc.
//
// Every error is an *endpoint.StepError: it names the step that failed.
package pingpong
