package cli

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// seconds is a flag as ping(8) has it, 0.2, and as Go writes it, 200ms.
type seconds time.Duration

func (s *seconds) Set(text string) error {
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		// Also refuses what is not a number.
		if !(math.Abs(f) < 1e9) {
			return fmt.Errorf("%s seconds is out of range", text)
		}
		*s = seconds(f * float64(time.Second))
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is neither a number of seconds nor a duration like 200ms", text)
	}
	*s = seconds(d)
	return nil
}

func (s *seconds) String() string { return time.Duration(*s).String() }
func (s *seconds) Type() string   { return "seconds" }
