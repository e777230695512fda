package roce

// memTable finds registered memory by key. Guarded by node.mu.
type memTable struct{}
