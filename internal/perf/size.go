package perf

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// MaxSize is the longest message that is measured, in bytes.
const MaxSize = 1 << 30

// ParseSize reads a number of bytes: 64, 4k, 4KiB, 1m, 1g, 1t. A k is 1024.
func ParseSize(text string) (int64, error) {
	s := strings.ToLower(strings.TrimSpace(text))
	digits := strings.TrimRight(s, "kmgtib")
	unit := s[len(digits):]
	shift, ok := map[string]int{"": 0, "b": 0, "k": 10, "kb": 10, "kib": 10, "m": 20, "mb": 20, "mib": 20,
		"g": 30, "gb": 30, "gib": 30, "t": 40, "tb": 40, "tib": 40}[unit]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || n < 0 {
		return 0, fmt.Errorf("%q is no size: write bytes, or 4k, 1m, 1g", text)
	}
	if n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is too large", text)
	}
	return n << shift, nil
}

// ParseSizes reads a list of message sizes, separated by commas.
func ParseSizes(text string) ([]int, error) {
	var out []int
	for _, s := range strings.Split(text, ",") {
		n, err := ParseSize(s)
		if err != nil {
			return nil, err
		}
		if n < 1 || n > MaxSize {
			return nil, fmt.Errorf("%s: a message has 1 byte to %s", FormatSize(n), FormatSize(MaxSize))
		}
		out = append(out, int(n))
	}
	return out, nil
}

// AllSizes are the powers of two from 2 B to 8 MiB, as perftest's -a.
func AllSizes() []int {
	var out []int
	for n := 2; n <= 8<<20; n *= 2 {
		out = append(out, n)
	}
	return out
}

// FormatSize writes bytes with the largest unit that divides them.
func FormatSize(n int64) string {
	for _, u := range []struct {
		name  string
		shift int
	}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
		if n >= 1<<u.shift && n%(1<<u.shift) == 0 {
			return fmt.Sprintf("%d %s", n>>u.shift, u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
