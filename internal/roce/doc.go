// Package roce is a RoCEv2 device in Go: the second provider behind package
// verbs. It needs no privilege, no kernel module and no hardware.
//
// A node is the device. One lock guards it whole: transports (package rc), the
// memory table and the timers; so to take a region away is to wait for the
// packet that is being copied. Links (package link) bring packets in batches and
// take them in batches; a batch costs one turn of the lock. Whoever has something
// to do drives the device: the poster sends, the poller of an empty queue looks
// for packets, and a goroutine for each link and one for the timers do the rest.
package roce
