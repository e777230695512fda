package rpc

import "sync"

// workers runs calls in goroutines that stay for the next one: the stack of a new
// goroutine would have to grow again for each call.
//
// While calls wait, one goroutine that was woken is on its way; when it takes the
// first it wakes another for the next. So a call waits for no other's handler, and
// a run of short ones wakes hardly anybody.
type workers struct {
	wg *sync.WaitGroup // counts the goroutines

	mu          sync.Mutex
	first, last *ServerCall // those that wait, by ServerCall.next; guarded by mu, as all below
	idle        []chan bool // of those that sleep; true: there is work
	coming      bool        // one was woken for it, or begun, and has not looked yet
	closed      bool
}

// maxIdle is how many goroutines stay without work.
const maxIdle = 64

// run has c.run called by a goroutine of its own, soon. It does not block.
func (w *workers) run(c *ServerCall) {
	w.mu.Lock()
	if w.first == nil {
		w.first = c
	} else {
		w.last.next = c
	}
	w.last = c
	wake, begin := w.wakeLocked()
	w.mu.Unlock()
	w.rouse(wake, begin)
}

// wakeLocked chooses who is to come; rouse fetches him once mu is free.
func (w *workers) wakeLocked() (wake chan bool, begin bool) {
	if w.coming {
		return nil, false
	}
	w.coming = true
	if n := len(w.idle); n > 0 {
		wake = w.idle[n-1]
		w.idle = w.idle[:n-1]
		return wake, false
	}
	w.wg.Add(1) // the caller counts there too, so Wait has not returned
	return nil, true
}

func (w *workers) rouse(wake chan bool, begin bool) {
	if wake != nil {
		wake <- true
	} else if begin {
		go w.work()
	}
}

func (w *workers) work() {
	defer w.wg.Done()
	var sleep chan bool
	w.mu.Lock()
	w.coming = false
	for {
		if c := w.first; c != nil {
			w.first, c.next = c.next, nil
			var wake chan bool
			var begin bool
			if w.first != nil {
				wake, begin = w.wakeLocked()
			}
			w.mu.Unlock()
			w.rouse(wake, begin)
			c.run()
			w.mu.Lock()
			continue
		}
		if w.closed || len(w.idle) >= maxIdle {
			w.mu.Unlock()
			return
		}
		if sleep == nil {
			sleep = make(chan bool, 1)
		}
		w.idle = append(w.idle, sleep)
		w.mu.Unlock()
		work := <-sleep
		w.mu.Lock()
		if work {
			w.coming = false
		}
	}
}

// close lets the goroutines end when they have nothing to do. Calls still come.
func (w *workers) close() {
	w.mu.Lock()
	w.closed = true
	idle := w.idle
	w.idle = nil
	w.mu.Unlock()
	for _, ch := range idle {
		ch <- false
	}
}
