package rpc

import "sync/atomic"

type clientStats struct {
	calls, failed, cancelled, replays, late, stalls     atomic.Uint64
	copied, sessions, restarts, fencedByAck, fencedHard atomic.Uint64
}

// ClientStats are running counts of a Client.
type ClientStats struct {
	Calls, Failed, Cancelled uint64
	Replays                  uint64 // idempotent calls, and calls not sent yet, done again on another session
	Late                     uint64 // answers to calls that had ended
	Stalls                   uint64 // waits for a free place among Config.MaxCalls
	Sessions                 uint64 // connections made
	Restarts                 uint64 // of them, those that found another process
	Copied                   uint64 // bytes of arguments that the CPU put into messages; bulk data never is
	FencedByAck              uint64 // cancelled calls whose memory the server gave back
	FencedHard               uint64 // and those where the right was taken away
}

// Stats reads the counts.
func (c *Client) Stats() ClientStats {
	s := &c.stats
	return ClientStats{Calls: s.calls.Load(), Failed: s.failed.Load(), Cancelled: s.cancelled.Load(), Replays: s.replays.Load(), Late: s.late.Load(),
		Stalls: s.stalls.Load(), Sessions: s.sessions.Load(), Restarts: s.restarts.Load(), Copied: s.copied.Load(), FencedByAck: s.fencedByAck.Load(), FencedHard: s.fencedHard.Load()}
}

type serverStats struct {
	calls, failed, refused, cancelled, panics, sessions, copied atomic.Uint64
}

// ServerStats are running counts of a Server.
type ServerStats struct {
	Calls, Failed, Refused, Cancelled, Panics uint64
	Sessions                                  uint64 // ever
	Open                                      int    // now
	Copied                                    uint64 // bytes of answers that the CPU put into messages
}

// Stats reads the counts.
func (s *Server) Stats() ServerStats {
	st := ServerStats{Calls: s.stats.calls.Load(), Failed: s.stats.failed.Load(), Refused: s.stats.refused.Load(), Cancelled: s.stats.cancelled.Load(),
		Panics: s.stats.panics.Load(), Sessions: s.stats.sessions.Load(), Copied: s.stats.copied.Load()}
	s.mu.Lock()
	st.Open = len(s.sessions)
	s.mu.Unlock()
	return st
}
