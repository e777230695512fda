package pingpong

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// Version of the protocol. Both sides must speak the same.
const Version = 1

const (
	magic   = "ZRDMA-PING/"
	maxLine = 512
	// ExchangeTime bounds the exchange, so that a silent peer holds nobody.
	ExchangeTime = 10 * time.Second
)

// Hello is what an end tells the other: where its queue pair is, and what it wants.
type Hello struct {
	QPN, PSN uint32 // 24 bits
	LID      uint16 // 0 on RoCE
	GID      verbs.GID
	MTU      verbs.MTU // of its port
	Size     int       // bytes of a message; the server repeats the client's

	// UD only: a release without datagrams writes neither, and so cannot be taken
	// for one that has them.
	Transport Transport
	QKey      uint32
}

// Encode writes the line: magic, version, then key=value in any order.
func (h Hello) Encode() []byte {
	b := fmt.Appendf(nil, "%s%d qpn=%06x psn=%06x lid=%04x gid=%x mtu=%d size=%d",
		magic, Version, h.QPN, h.PSN, h.LID, h.GID[:], 128<<h.MTU, h.Size)
	if h.Transport == UD {
		b = fmt.Appendf(b, " transport=ud qkey=%08x", h.QKey)
	}
	return append(b, '\n')
}

// short is the hello as private data of a connection manager, which knows the
// rest itself.
func (h Hello) short() []byte {
	return fmt.Appendf(nil, "%s%d size=%d\n", magic, Version, h.Size)
}

// decodeShort reads private data: what the peer says in it, up to the end of the
// line, and its size.
func decodeShort(b []byte) (int, error) {
	line, _, ok := bytes.Cut(b, []byte("\n"))
	if !ok {
		return 0, errNotPing
	}
	fields, err := decodeFields(line)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(fields["size"], 10, 31)
	if err != nil {
		return 0, fmt.Errorf("size=%q: %w", fields["size"], errNotPing)
	}
	return int(n), nil
}

// encodeRefusal is the line of a server that does not want to play.
func encodeRefusal(why string) []byte {
	why = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '�' {
			return ' '
		}
		return r
	}, why)
	if limit := maxLine - 64; len(why) > limit {
		why = strings.ToValidUTF8(why[:limit], "")
	}
	return fmt.Appendf(nil, "%s%d error=%s\n", magic, Version, why)
}

// Refused is the reason of a peer that does not want to play.
type Refused string

func (r Refused) Error() string { return "the peer refuses: " + string(r) }

// VersionError is a peer that speaks another version of the protocol.
type VersionError struct{ Peer string }

func (e VersionError) Error() string {
	return fmt.Sprintf("the peer speaks version %s of the ping protocol, this is version %d: use the same release of zrdma on both sides", e.Peer, Version)
}

// errNotPing is a peer that speaks something else.
var errNotPing = errors.New("the peer does not speak the protocol of zrdma ping")

// Misfit says whether an error is about a peer that does not fit: another program,
// another version, or one that refuses.
func Misfit(err error) bool {
	var r Refused
	var v VersionError
	return errors.Is(err, errNotPing) || errors.As(err, &r) || errors.As(err, &v)
}

// DecodeHello reads a line without its end. Keys it does not know are ignored,
// so that the protocol can grow; a key that is missing, repeated or out of range
// is an error.
func DecodeHello(line []byte) (Hello, error) {
	var h Hello
	fields, err := decodeFields(line)
	if err != nil {
		return h, err
	}
	var errs []error
	number := func(key string, base, bits int) uint64 {
		n, err := strconv.ParseUint(fields[key], base, bits)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s=%q: %w", key, fields[key], errors.Unwrap(err)))
		}
		return n
	}
	h.QPN, h.PSN = uint32(number("qpn", 16, 24)), uint32(number("psn", 16, 24))
	h.LID = uint16(number("lid", 16, 16))
	h.Size = int(number("size", 10, 31))
	switch mtu := number("mtu", 10, 16); mtu {
	case 256, 512, 1024, 2048, 4096:
		for h.MTU = verbs.MTU256; 128<<h.MTU != mtu; h.MTU++ {
		}
	default:
		errs = append(errs, fmt.Errorf("mtu=%d is none of 256, 512, 1024, 2048, 4096", mtu))
	}
	if gid, err := hex.DecodeString(fields["gid"]); err != nil || len(gid) != len(h.GID) {
		errs = append(errs, fmt.Errorf("gid=%q is not 32 hexadecimal digits", fields["gid"]))
	} else {
		copy(h.GID[:], gid)
	}
	switch t := fields["transport"]; t {
	case "":
		h.Transport = RC
	case string(UD):
		h.Transport, h.QKey = UD, uint32(number("qkey", 16, 32))
	default:
		errs = append(errs, fmt.Errorf("this release knows no transport=%q", t))
	}
	return h, errors.Join(errs...)
}

// decodeFields reads the magic, the version and what comes behind.
func decodeFields(line []byte) (map[string]string, error) {
	rest, ok := bytes.CutPrefix(line, []byte(magic))
	if !ok {
		return nil, errNotPing
	}
	version, rest, _ := bytes.Cut(rest, []byte(" "))
	if string(version) != strconv.Itoa(Version) {
		if _, err := strconv.ParseUint(string(version), 10, 16); err != nil {
			return nil, errNotPing
		}
		return nil, VersionError{string(version)}
	}
	if why, ok := bytes.CutPrefix(rest, []byte("error=")); ok {
		return nil, Refused(printable(why))
	}
	fields := map[string]string{}
	for _, f := range bytes.Fields(rest) {
		k, v, ok := strings.Cut(string(f), "=")
		if !ok {
			return nil, fmt.Errorf("%q is not key=value", f)
		}
		if _, dup := fields[k]; dup {
			return nil, fmt.Errorf("%q stands twice", k)
		}
		fields[k] = v
	}
	return fields, nil
}

// printable keeps a peer's text from writing to our terminal.
func printable(b []byte) string {
	s := strconv.Quote(string(b))
	return s[1 : len(s)-1]
}

// readHello reads one line. It gives up at the first byte that cannot belong to
// a hello, so that other protocols are recognised at once.
func readHello(c net.Conn) (Hello, error) {
	var line []byte
	var one [1]byte // nothing behind the line may be read
	for {
		if _, err := io.ReadFull(c, one[:]); err != nil {
			if errors.Is(err, io.EOF) && len(line) == 0 {
				err = errors.New("the peer closed the connection without a word")
			}
			return Hello{}, err
		}
		if one[0] == '\n' {
			return DecodeHello(line)
		}
		line = append(line, one[0])
		if n := min(len(line), len(magic)); string(line[:n]) != magic[:n] {
			if line[0] >= '0' && line[0] <= '9' {
				return Hello{}, fmt.Errorf("%w: it may be ibv_rc_pingpong, whose peer is examples/pingpong", errNotPing)
			}
			return Hello{}, errNotPing
		}
		if len(line) > maxLine {
			return Hello{}, fmt.Errorf("a line of more than %d bytes: %w", maxLine, errNotPing)
		}
	}
}
