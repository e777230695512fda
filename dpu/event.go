package dpu

import (
	"fmt"
	"time"
)

// EventKind is what an Event tells.
type EventKind uint8

// Values of EventKind.
const (
	Done          EventKind = iota + 1 // an operation has ended: Path is the one that ended it, Err its error
	FellBack                           // an operation that was given to the agent goes Direct; Err is why
	Indeterminate                      // a write ends with ErrIndeterminate; Err is why
	AgentUp                            // there is an agent; Epoch is its
	AgentLost                          // it is gone; Err is why, Took how long it took until every operation was fenced
	AgentDrains                        // it takes nothing new, as it was asked to end
	AgentAway                          // an attempt to connect failed; Err is why
)

var eventNames = [...]string{Done: "done", FellBack: "fell back", Indeterminate: "indeterminate", AgentUp: "agent up", AgentLost: "agent lost",
	AgentDrains: "agent drains", AgentAway: "agent away"}

// String is the name of the kind.
func (k EventKind) String() string {
	if int(k) < len(eventNames) && k > 0 {
		return eventNames[k]
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// Event is something that a Client tells Config.OnEvent.
type Event struct {
	Kind EventKind
	Op   string // get, put, stat, list, delete; empty for the agent's
	Key  string
	Size int // bytes of the caller's memory
	Path Path
	// Began is the path that it began with; another one than Path: it fell back.
	Began Path
	Epoch uint32 // of the agent
	Err   error
	// Took is the time since the operation began; of FellBack, until its memory was
	// the caller's again.
	Took time.Duration
}

// ClientStats are running counts of a Client.
type ClientStats struct {
	Direct, Staged           uint64 // operations that ended well, by the path that ended them
	DirectBytes, StagedBytes uint64
	Failed                   uint64 // operations that ended with an error, those given up among them

	FellBack      uint64 // operations that began with the agent and went on Direct
	Refused       uint64 // of them, those that the agent did not begin: over a quota, or on its way out
	Replayed      uint64 // writes done again with their token
	Indeterminate uint64 // writes that ended with ErrIndeterminate
	Fences        uint64 // grants that were revoked because an agent was lost
	FenceTime     time.Duration
	Agents        uint64 // connections to agents, ever
	Lost          uint64 // of them, those that were lost
	Up            bool   // there is an agent now
	Epoch         uint32 // of the agent, or of the last one
	Depth         int    // operations that it has
	Doorbells     uint64 // posts of descriptors
	Descriptors   uint64
	StatusWrites  uint64 // announcements of status entries
	Statuses      uint64 // entries
	PolicyChanges uint64 // by queue depth
}
