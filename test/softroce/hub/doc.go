// Package hub joins VMs, or anything else that speaks Ethernet frames, to one
// L2 network and breaks it on demand: loss, delay, reordering, duplication and
// partition, separately for every ordered pair of ports, seeded, and changed
// while frames run.
//
//	h := hub.New(hub.Config{Ports: 2, Seed: 1})
//	h.SetLink(0, 1, hub.Faults{Loss: 0.01, Delay: 2 * time.Millisecond})
//	h.Partition(0, 1)
//	h.Heal(0, 1)
//
// What happens to the n-th frame of a link follows from the seed, the link, n
// and the faults set, and from nothing else. (Which frame is the n-th is up to
// the hosts.)
//
// # Ownership
//
// Attach takes ownership of the connection; Close closes all of them.
//
// # Concurrency
//
// Every method may be called at any time by anybody. A Faults.Match function is
// called under the hub's lock and must be quick.
//
// # Blocking
//
// Nothing blocks. A port that does not read loses frames when its queue is
// full, as a switch does, and Stats counts them.
//
// # Cleanup
//
// Close waits for the hub's goroutines. Frames on their way are dropped.
package hub
