// Package rc is the reliable connected transport of the software device: one
// QP is a requester and a responder, a plain state machine. An event goes in (a
// request posted, a packet decoded, time passed), packets and completions come
// out through the Sink. It has no clock, no socket, no goroutine and no lock,
// and in steady state it allocates nothing.
//
// # Ownership
//
// A QP belongs to one caller at a time: the device holds a lock around every
// call. Slices that Memory returns are used only until the call that asked for
// them ends, so the device may take memory away between two calls; each packet
// looks its memory up again, which is what makes deregistration a fence.
// Slices given to Sink.Packet are lent for that call: the sink gathers or sends
// them before it returns. A payload is copied once, from the packet into its
// target. The Sink must not call back into the QP.
//
// # Invariants of the requester
//
//   - head <= cur <= tail are running numbers of requests: retired, being sent,
//     posted. una <= nxt <= high are packet numbers: oldest unanswered, next to
//     send, end of what was ever sent. Packet numbers are 64 bits wide inside;
//     24 bits cross the wire and are widened around una (see widen), so a wrap
//     is no case of its own.
//   - every packet below una is answered; una lies in the request at head. To go
//     back is to set nxt to una and cur to head, nothing else.
//   - una moves past a READ or an atomic only by its own response. An answer to
//     something later is the sign that the response was lost.
//   - between two steps forward of una one go-back is made for what the peer
//     says and one for each expiry of the timer, so answers to a lost cause do
//     not start a storm.
//   - a request completes exactly once, in order; a request that cannot be sent
//     (bad lkey, failed bind) waits until it is at head to fail.
//   - a long READ is asked for in pieces of at most Config.ReadChunk or half the
//     largest window; each counts against max_rd_atomic. So what comes back is bounded by
//     the window too, which one piece alone may exceed.
//   - LOCAL_INV waits until it is at head: a packet sent again must still find
//     its memory. BIND_MW runs when it is reached, once.
//
// # Invariants of the responder
//
//   - only the packet numbered ePSN changes memory, receive queue or state. An
//     older one is answered again, a newer one makes one NAK per gap.
//   - responses leave in the order of their packet numbers: ACKs and NAKs wait
//     until the READ responses before them were streamed by Pump.
//   - it holds max_dest_rd_atomic READ and atomic responses to stream, and
//     remembers as many atomics to replay: what the peer sends cannot make it grow.
//   - after an error of the peer's making, it says so once and is in ERR.
//
// # Choices
//
// retry_cnt counts go-backs without progress, for time-outs and NAKs alike, and
// 7 means seven (rxe: endless); timeout 0 and rnr_retry 7 are endless as the
// specification has it. The second wait for an ACK is twice the timeout, later
// ones four times, which is the specification's limit. A receive that is too small
// completes with LOC_LEN_ERR, as on hardware (rxe: REM_INV_REQ_ERR); the sender
// sees REM_INV_REQ_ERR. A packet that answers nothing that was asked is dropped,
// not an error: it may be late from a former connection.
//
// Source: InfiniBand Architecture Specification 1.4, chapter 9.
package rc
