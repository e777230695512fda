package mr

// A mark is something that a mapping has and that it loses when it is unmapped.

// mark puts it on the pages of e. It is false where that tells nothing: then the
// entry is not kept. mu is held.
func (c *Cache) mark(e *entry) bool {
	at := e.at.pages()
	// Pages that others of ours have marked are marked already; if it is anything
	// else that locked them, the mark would not be lost with the mapping.
	ours := func(p uintptr) bool { return !pageLocked(p) || c.marked(p, e) }
	return everySample(at, ours) && lockPages(at) && isMarked(e.at)
}

// marked reports that an entry beside e has put its mark on the page.
func (c *Cache) marked(page uintptr, e *entry) bool {
	for _, o := range c.entries {
		if o != e && o.kept && o.at.pages().contains(span{page, page + uintptr(pageSize)}) {
			return true
		}
	}
	return false
}

// unmark takes it off again, but not off the pages of other entries. Those are
// looked at first: marking them anew must not hide that they have lost it.
func (c *Cache) unmark(e *entry) {
	if !e.kept {
		return
	}
	e.kept = false
	at := e.at.pages()
	var again []span
	for _, o := range c.entries {
		p := o.at.pages()
		if o == e || !o.kept || !p.overlaps(at) {
			continue
		}
		if !isMarked(o.at) {
			o.stale = true
			continue
		}
		again = append(again, span{max(p.lo, at.lo), min(p.hi, at.hi)})
	}
	unlockPages(at)
	for _, p := range again {
		lockPages(p)
	}
}

// isMarked looks for the mark on a sample of the pages of at.
func isMarked(at span) bool {
	return everySample(at.pages(), pageLocked)
}

const maxSamples = 16

// everySample asks for pages of at, all of them if they are few, else some with
// the first and the last among them, until ok is false.
func everySample(at span, ok func(page uintptr) bool) bool {
	n := int(at.hi-at.lo) / pageSize
	k := min(n, maxSamples)
	for i := range k {
		j := i
		if k < n {
			j = i * (n - 1) / (k - 1)
		}
		if !ok(at.lo + uintptr(j*pageSize)) {
			return false
		}
	}
	return true
}
