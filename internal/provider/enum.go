package provider

import (
	"strconv"
	"strings"
)

// name ties a value to the name that the C headers give it.
type name struct {
	v uint64
	s string
}

// enumString gives the name of v, or the type and the number where it has none.
func enumString(names []name, v uint64, typ string) string {
	for _, n := range names {
		if n.v == v {
			return n.s
		}
	}
	return typ + "(" + strconv.FormatInt(int64(v), 10) + ")"
}

// flagString joins the names of the bits set in v by "|"; bits without a name
// follow as one hexadecimal number.
func flagString(names []name, v uint64, _ string) string {
	if v == 0 {
		return "0"
	}
	var b strings.Builder
	for _, n := range names {
		if n.v != 0 && v&n.v == n.v {
			if b.Len() > 0 {
				b.WriteByte('|')
			}
			b.WriteString(n.s)
			v &^= n.v
		}
	}
	if v != 0 {
		if b.Len() > 0 {
			b.WriteByte('|')
		}
		b.WriteString("0x" + strconv.FormatUint(v, 16))
	}
	return b.String()
}
