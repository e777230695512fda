// Package cli is the command line of softroce, for the command of that name and
// for any other program that wants to offer it.
//
// Ownership: Main owns nothing after it returned. Concurrency: call Main once at
// a time; it listens for signals. Blocking: until the command ends, the timeout
// or a signal. Cleanup: before Main returns the VMs are gone.
package cli
