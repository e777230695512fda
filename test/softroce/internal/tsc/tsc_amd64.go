package tsc

const readable = true

// read is the instruction RDTSC.
func read() uint64
