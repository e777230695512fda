// Package endpoint is what the operator's tools have in common: an open device
// with the port and the GID to use, queue pairs whose ends meet over TCP, and
// errors that name the step that failed.
package endpoint
