package rpc

import "time"

// Stages says how a call went: when, since Start, it had come how far. A stage
// that it did not come to is 0. It is only measured where somebody asks, by
// Config.OnCall or ServerConfig.OnHandled.
type Stages struct {
	Method string
	Err    error
	// Start is when Call was called; on the server, when the request had come.
	Start time.Time

	Queued    time.Duration // client: it had a place among Config.MaxCalls; server: its turn, and so the handler's begin
	Posted    time.Duration // client: the request was posted; server: the answer
	Received  time.Duration // client: the answer had come
	Pulled    time.Duration // server: the last Pull had ended
	Pushed    time.Duration // server: the last Push had ended
	Handled   time.Duration // server: the handler had returned
	Completed time.Duration // client: Call returns; server: nothing of the call goes on
}

type stage uint8

const (
	queued stage = iota
	posted
	received
	pulled
	pushed
	handled
	completed
)

func startStages(method string) *Stages { return &Stages{Method: method, Start: time.Now()} }

// mark notes that a stage is reached. A nil *Stages is not measured.
func (s *Stages) mark(at stage) {
	if s == nil {
		return
	}
	*[...]*time.Duration{&s.Queued, &s.Posted, &s.Received, &s.Pulled, &s.Pushed, &s.Handled, &s.Completed}[at] = max(time.Since(s.Start), 1)
}

func (s *Stages) finish(f func(*Stages)) {
	s.mark(completed)
	f(s)
}
