package rpc

// turn is the place of a call among those of its order key.
type turn struct {
	prev *turn
	done chan struct{} // closed when it was handled, or will not be
	// early: it will not be, and its turn had not come: who is behind it waits for
	// prev. Set before done is closed.
	early bool
}

// wait waits until all calls before it have been handled; false: stop came first.
func (t *turn) wait(stop <-chan struct{}) bool {
	for p := t.prev; p != nil; p = p.prev {
		select {
		case <-p.done:
			if !p.early {
				t.prev = nil // keeps no chain of calls alive
				return true
			}
		case <-stop:
			return false
		}
	}
	return true
}

// pass ends a turn. One that ends early leaves nothing behind but for those that
// wait behind it, so that such calls, of which no limit counts the ended ones, cost
// neither a goroutine nor memory.
func (ss *serverSession) pass(key uint32, t *turn, early bool) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	t.early = early
	if ss.orders[key] == t {
		last := t
		for last != nil && last.early {
			last = last.prev
		}
		if last == nil || last == t || last.over() {
			delete(ss.orders, key)
		} else {
			ss.orders[key] = last
		}
	}
	close(t.done)
}

// over reports a turn that has ended.
func (t *turn) over() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}
