package agent

// Request says what the guest is to run.
type Request struct {
	Argv []string
	Env  []string
	Dir  string
	// Files, when set, asks for the tree at this path as a tar stream on
	// standard output; Argv is then not used.
	Files string
	// UID and GID of the process. 0 is root.
	UID, GID uint32
	// Memlock limits locked memory, in bytes; negative means no limit.
	Memlock int64
	// Stdin says that the host will send standard input.
	Stdin bool
}

// Hello is what the guest says when rxe is up.
type Hello struct {
	Kernel  string        // uname -r
	Uptime  float64       // seconds of guest time
	Devices []string      // rxe0, rxe1, ...
	Steps   []HelloTiming // what the boot spent its time on
}

// HelloTiming is one step of the guest's boot and the uptime at its end.
type HelloTiming struct {
	Step   string
	Uptime float64
}

// Status is how a process ended.
type Status struct {
	Code   int
	Signal int    `json:",omitempty"` // 0 unless a signal ended it
	Err    string `json:",omitempty"` // what went wrong besides the exit status
}

type startReply struct {
	PID int
	Err string `json:",omitempty"`
}
