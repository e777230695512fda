package perf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// The versions of the protocol that this release speaks. Both ends use the
// highest that both know. A new field of a message needs no new version: what a
// peer does not know it ignores.
const (
	minVersion = 1
	maxVersion = 1
)

const (
	magic    = "ZRDMA-BENCH "
	maxHello = 512
	// helloTime bounds the exchange, so that a silent peer holds nobody.
	helloTime = 10 * time.Second
)

// PeerError is a peer that cannot be measured with: it speaks something else, or
// another version.
type PeerError struct{ Why string }

func (e *PeerError) Error() string { return e.Why }

// hello is the first line of each end.
type hello struct {
	Min, Max int    // versions
	Release  string // of the program, for people
	Refused  string // why the server does not want to; the last key, up to the end of the line
}

func (h hello) encode() []byte {
	s := fmt.Sprintf("%smin=%d max=%d release=%s", magic, h.Min, h.Max, strings.ReplaceAll(h.Release, " ", "_"))
	if h.Refused != "" {
		s += " refused=" + oneLine(h.Refused)
	}
	return append([]byte(s[:min(len(s), maxHello-1)]), '\n')
}

func decodeHello(line []byte) (h hello, err error) {
	rest, ok := bytes.CutPrefix(line, []byte(magic))
	if !ok {
		return h, errStranger
	}
	rest, refused, _ := bytes.Cut(rest, []byte(" refused="))
	h.Refused = printable(refused)
	seen := map[string]string{}
	for _, f := range bytes.Fields(rest) {
		k, v, ok := strings.Cut(string(f), "=")
		if _, dup := seen[k]; !ok || dup {
			return h, errStranger
		}
		seen[k] = v
	}
	if h.Min, err = strconv.Atoi(seen["min"]); err != nil {
		return h, errStranger
	}
	if h.Max, err = strconv.Atoi(seen["max"]); err != nil || h.Min < 1 || h.Max < h.Min {
		return h, errStranger
	}
	h.Release = printable([]byte(seen["release"]))
	return h, nil
}

// agree is the version that both ends use.
func (h hello) agree() (int, error) {
	if v := min(h.Max, maxVersion); v >= max(h.Min, minVersion) {
		return v, nil
	}
	older := "upgrade this end"
	if h.Max < minVersion {
		older = "upgrade the peer"
	}
	return 0, &PeerError{fmt.Sprintf("the peer (%s) speaks versions %d to %d of the bench protocol, this is %d to %d: %s", h.Release, h.Min, h.Max, minVersion, maxVersion, older)}
}

var errStranger = &PeerError{"the peer does not speak the protocol of zrdma bench"}

// readHello gives up at the first byte that cannot belong to a hello, so that
// other programs are recognised at once.
func readHello(c net.Conn) (hello, error) {
	var line []byte
	var one [1]byte // nothing behind the line may be read
	for {
		if _, err := io.ReadFull(c, one[:]); err != nil {
			var ne net.Error
			switch {
			case errors.As(err, &ne) && ne.Timeout():
				err = &PeerError{fmt.Sprintf("the peer said nothing within %v: is it perftest, or another program?", helloTime)}
			case errors.Is(err, io.EOF) && len(line) == 0:
				err = &PeerError{"the peer closed the connection without a word: is it perftest, or another program?"}
			}
			return hello{}, err
		}
		if one[0] == '\n' {
			return decodeHello(line)
		}
		line = append(line, one[0])
		if n := min(len(line), len(magic)); string(line[:n]) != magic[:n] || len(line) > maxHello {
			return hello{}, stranger(line)
		}
	}
}

// stranger guesses who it is by what it said first. perftest begins with its
// version, in digits; ibv_rc_pingpong with a LID.
func stranger(line []byte) error {
	switch c := line[0]; {
	case c >= '0' && c <= '9':
		return &PeerError{errStranger.Why + ": this looks like perftest (ib_send_bw and its like), which speaks only with itself; run `zrdma bench --serve` there"}
	case strings.HasPrefix("ZRDMA-PING", string(line[:min(len(line), 10)])) || len(line) > 6 && string(line[:6]) == "ZRDMA-":
		return &PeerError{errStranger.Why + ": it is another program of zrdma, perhaps `zrdma ping`, whose port is 18516"}
	}
	return errStranger
}

// printable keeps a peer's text from writing to our terminal.
func printable(b []byte) string {
	s := strconv.Quote(string(b))
	return s[1 : len(s)-1]
}

// oneLine makes text fit for a line of the protocol.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '�' {
			return ' '
		}
		return r
	}, s)
}
