// Package cm is the connection manager of the software RoCEv2 device: the MADs
// of the InfiniBand communication manager on queue pair 1, with the addresses
// that rdma_cm puts in front of the private data, behind provider.CM.
//
// Three layers: the messages (mad.go, msg.go); a machine without clock, socket
// or lock, into which calls, messages and time go and out of which messages and
// notices come (machine.go, call.go, input.go, timer.go); and the Manager, which
// gives it a lock, a timer and a device, makes events of its notices and moves
// queue pairs.
//
// # Like rdma_cm
//
// Messages, service ids, events, their statuses and errnos are those of the
// kernel's rdma_cm and of librdmacm: testdata holds the kernel's own messages. A
// backlog counts requests that nobody has taken, and drops what is over it. An
// application that takes its time is excused with an MRA. The peer of a
// connection that is over hears so until the application has said so too. A
// queue pair goes to INIT when it is made, to RTR and RTS when the connection is
// accepted or the answer comes, to ERR when it is ended or refused.
//
// # Unlike it
//
//   - Messages are repeated after 0.25 s, doubled up to 4.3 s, and given up after
//     15 times, about a minute (rdma_cm: every 6 s or so, about 100 s).
//   - The wait for an acknowledgement is 134 ms where we choose (rdma_cm: 2.1 s);
//     TIMEWAIT, which follows from it, is as much shorter. The RNR timer is 0.64 ms
//     (rdma_cm: 655 ms).
//   - A refusal is remembered and repeated; rdma_cm asks its application again.
//   - A DREQ outlives its id: a peer hears of the end although the first message
//     was lost. Two that cross are both answered at once.
//   - An answer that nobody waits for is refused (invalid communication id), so
//     that the peer does not wait a minute.
//   - A request must come from the address that it names.
//   - There is no route to look up and no neighbour to ask: an address is resolved
//     when one of the device's leads there, see Router.
//
// Alternate paths (LAP, APR), service redirection and RDMA_PS_IB are not there.
//
// # Bounds
//
// What a peer sends can take a place in a backlog and one of 4096 places for
// refusals and former connections, and nothing else. Stats says what was dropped.
//
// Source: InfiniBand Architecture Specification 1.4, chapter 12 and annex A11.
package cm
