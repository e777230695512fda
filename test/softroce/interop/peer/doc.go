// Peer does every operation of a reliable connection with another peer: this
// program, on either provider, or the one in C beside it (../c), which takes the
// same flags.
//
// Both ends draw one plan from -seed, so each knows what the other will do and
// checks every byte, immediate, length and old value of a counter. The order of
// things:
//
//   - connect, by rdma_cm or (-oob) by a line of text over TCP: queue pair
//     number, first PSN and GID in hexadecimal; then both say "ready";
//   - the client sends a hello with its regions and keys, the server answers so;
//   - the test, in which messages of no bytes with an immediate of tag 0xa0 and
//     above steer: end of a round, its confirmation, credit, end of all;
//   - the client disconnects, or both say "done".
//
// -t chooses the test: mix (random operations in rounds of -depth), stream
// (numbered small messages), inv (windows and SEND_WITH_INV), refuse (what must
// fail, a connection each) and rnr (receives that come late or never). The last
// line is a summary in JSON; the exit code is 0 when all was as it must be.
package main
