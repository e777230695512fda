// Package pingpong bounces verified messages between two ends of a reliable
// connection: the engine of `zrdma ping`.
//
// The ends find each other through one line each way on a TCP connection (see
// Hello), which stays open while they play: its end is the end of the session.
// Only one message is under way at a time.
//
// Every error is a *StepError: it names the step that failed.
package pingpong
