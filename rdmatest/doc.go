// Package rdmatest tests code that uses verbs or rdmacm, without a NIC, a kernel
// module or root, as net/http/httptest does for HTTP: a network in memory, RDMA
// devices on it, and faults to be set while traffic runs.
//
//	func TestTransfer(t *testing.T) {
//		net := rdmatest.NewNetwork(t, 1)
//		server, client := net.Device(t), net.Device(t)
//		l, err := server.Listen(t.Context(), 0, rdmacm.ListenConfig{})
//		...
//		conn, err := client.Dial(t.Context(), l.Addr(), rdmacm.DialConfig{})
//		...
//		net.SetFaults(rdmatest.Faults{Drop: 0.01, Reorder: 0.05})
//		// what worked must go on working
//		net.Partition(client, server)
//		// what cannot work must end as you say it ends
//	}
//
// The devices are the software RoCE v2 device of this module: what a program sees
// of them, down to the status of a completion, is what it sees of soft:127.0.0.1
// and, where that is right, of the kernel's Soft-RoCE and of a NIC (docs/soft.md
// has the cases, one by one). What is under test takes a *verbs.Context, or
// rdmacm's DialConfig and ListenConfig with Device set; code that opens its device
// by name or by default cannot be given one of a Network.
//
// # Time
//
// NewNetwork's packets move in real time. Run gives the test a network whose
// packets move with the clock of testing/synctest: a retransmission timer of a
// second, or a connection manager that gives up after a minute, costs nothing, and
// one seed is one run, packet for packet, as long as the test itself does the same
// things:
//
//	func TestPeerGone(t *testing.T) {
//		rdmatest.Run(t, 42, func(t *testing.T, net *rdmatest.Network) {
//			a, b := net.Device(t), net.Device(t)
//			client, server := rdmatest.Connect(t, a, b, rdmacm.DialConfig{})
//			...
//			net.Partition(a, b)
//			// the retries of the queue pair, about a second, pass at once
//		})
//	}
//
// Goroutines that act at one instant do so in Go's order, which is not the seed's:
// have them begin a microsecond apart.
//
// Time stands still while a goroutine runs. Who waits for completions blocks in
// CQ.Wait on a queue with a channel, or polls: Poll of an empty queue lets a little
// time pass.
//
// # Ownership
//
// A Network and its Devices end with the test. Device's cleanup closes the device
// and, when something made from it is still open, fails the test with the stack
// that made it.
//
// # Concurrency
//
// Every method may be called from any goroutine.
//
// # Blocking
//
// Connect waits until the connection is there, and Device.Dial until its context
// ends; nothing else waits.
//
// # Cleanup
//
// The test does it: see Ownership. Close what was made from a Device before.
//
// # When a test fails
//
// The last packets, with what became of them, are printed. Log has them all.
package rdmatest
