package main

// memoryRows measure the in-memory network.
func memoryRows() []row { return nil }
