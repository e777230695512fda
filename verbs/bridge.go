package verbs

// lookupOther finds an object of a kind that AsyncEvent has no field for.
func (c *Context) lookupOther(cookie uint64) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w, ok := c.objs[cookie].(interface{ object() any }); ok {
		return w.object()
	}
	return nil
}
