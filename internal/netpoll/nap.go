package netpoll

// Nap is how long a waiter sleeps in C, on its thread, before it parks in the
// network poller, in nanoseconds. Only benchmarks change it, before they start.
var Nap int64 = 500_000
