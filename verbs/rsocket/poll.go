package rsocket

import (
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/ibv"
)

// PollFD is a descriptor to poll, an rsocket or any other; Revents is the answer.
type PollFD = ibv.PollFD

// Poll waits until one of fds is ready and returns how many are; 0 means that
// the time is over, and a negative timeout is endless. Unlike Socket.Wait it
// holds a thread, and the caller keeps every descriptor open meanwhile.
//
// Verb: rpoll(7).
func Poll(fds []PollFD, timeout time.Duration) (int, error) {
	n, err := ibv.RPoll(fds, millis(timeout))
	return n, opErr("rpoll", err)
}

// FDSet is a set of descriptors below 1024.
type FDSet = ibv.FDSet

// Select is Poll over sets, which it leaves with what is ready; nil is empty.
//
// Verb: rselect(7).
func Select(nfds int, read, write, except *FDSet, timeout time.Duration) (int, error) {
	if nfds < 0 || nfds > 1024 {
		return 0, opErr("rselect", syscall.EINVAL)
	}
	sets := [3]FDSet{}
	all := [3]*FDSet{read, write, except}
	for i := range all {
		if all[i] == nil {
			all[i] = &sets[i]
		}
	}
	n, err := ibv.RSelect(nfds, all[0], all[1], all[2], millis(timeout))
	return n, opErr("rselect", err)
}

// millis rounds up, so that a short wait is none of zero length.
func millis(d time.Duration) int {
	if d < 0 {
		return -1
	}
	ms := d / time.Millisecond
	if d%time.Millisecond != 0 {
		ms++
	}
	return int(min(ms, 1<<31-1))
}
