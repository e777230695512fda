package doctor

import (
	"context"
	"fmt"
	"path"
	"strings"
)

// counter is one whose growth means trouble.
type counter struct{ what, mend string }

const (
	lossMend = "ethtool -S NETDEV | grep -E 'discard|drop|pause'   # then PFC or ECN on the switch"
	slowMend = "zrdma doctor --watch 10s   # under load; post more receives, or serve them sooner"
)

// troubles are counters of sys/class/infiniband/DEV/ports/N/{hw_counters,counters}:
// mlx5's, the InfiniBand ones, and those of rxe.
var troubles = map[string]counter{
	"out_of_sequence":            {"packets arrived out of sequence: some were lost on the way", lossMend},
	"packet_seq_err":             {"peers asked for packets again: some were lost on the way", lossMend},
	"implied_nak_seq_err":        {"answers were lost on the way", lossMend},
	"local_ack_timeout_err":      {"packets were sent again after no answer came", lossMend},
	"rnr_nak_retry_err":          {"peers had no receive posted", slowMend},
	"out_of_buffer":              {"messages came while no receive was posted", slowMend},
	"np_cnp_sent":                {"the switch marked packets: peers were told to slow down (CNP)", lossMend},
	"rp_cnp_handled":             {"this side was told to slow down (CNP)", lossMend},
	"np_ecn_marked_roce_packets": {"packets arrived with the mark of a full switch", lossMend},
	"rx_icrc_encapsulated":       {"packets arrived damaged", "ethtool -S NETDEV | grep -i err   # then the cable"},
	"symbol_error":               {"the link has symbol errors", "mlxlink -d PCI -c   # then the cable"},
	"link_error_recovery":        {"the link had to recover", "mlxlink -d PCI -c   # then the cable"},
	"link_downed":                {"the link went down", "mlxlink -d PCI   # then the cable"},
	"port_rcv_errors":            {"packets arrived damaged", "mlxlink -d PCI -c   # then the cable"},
	"port_xmit_discards":         {"packets to send were dropped", lossMend},
	"rcvd_seq_err":               {"peers asked for packets again: some were lost on the way", lossMend},
	"out_of_seq_request":         {"requests arrived out of sequence: some were lost on the way", lossMend},
	"duplicate_request":          {"requests arrived twice: answers were lost or late", lossMend},
	"completer_retry_err":        {"packets were sent again", lossMend},
	"retry_exceeded_err":         {"connections broke after all retries", lossMend},
	"rcvd_rnr_err":               {"peers had no receive posted", slowMend},
	"send_rnr_err":               {"messages came while no receive was posted", slowMend},
	"retry_rnr_exceeded_err":     {"connections broke because a peer had no receive posted", slowMend},
}

type counterKey struct {
	rdma string
	port int
	name string
}

func (e *exam) readCounters() map[counterKey]uint64 {
	out := map[counterKey]uint64{}
	for _, d := range e.inv.RDMA {
		for _, p := range d.Ports {
			for _, dir := range []string{"hw_counters", "counters"} {
				at := path.Join("sys/class/infiniband", d.Name, "ports", fmt.Sprint(p.Number), dir)
				for _, name := range e.list(at) {
					if _, ok := troubles[name]; !ok {
						continue
					}
					if n, ok := e.number(path.Join(at, name)); ok {
						out[counterKey{d.Name, p.Number, name}] = n
					}
				}
			}
		}
	}
	return out
}

func (e *exam) counters(ctx context.Context) error {
	before := e.readCounters()
	after := before
	if e.cfg.Watch > 0 {
		if err := e.cfg.Sleep(ctx, e.cfg.Watch); err != nil {
			return err
		}
		after = e.readCounters()
	}
	for _, d := range e.inv.RDMA {
		for _, p := range d.Ports {
			for _, name := range sortedNames {
				k := counterKey{d.Name, p.Number, name}
				n, ok := after[k]
				subject := fmt.Sprintf("%s port %d", d.Name, p.Number)
				switch {
				case !ok:
				case e.cfg.Watch > 0 && n > before[k]:
					e.find(Slow, "counters", subject, fmt.Sprintf("%s grew by %d in %v: %s", name, n-before[k], e.cfg.Watch, troubles[name].what), e.fill(troubles[name].mend, d.Name, p.Netdev))
				case e.cfg.Watch == 0 && n > 0:
					e.find(Note, "counters", subject, fmt.Sprintf("%s is %d since the start: %s", name, n, troubles[name].what), "zrdma doctor --watch 10s   # does it grow?")
				}
			}
		}
	}
	return nil
}

// fill puts the netdev and the PCI address of a device into a command.
func (e *exam) fill(mend, rdma, netdev string) string {
	if f := e.inv.Function(rdma); f != nil {
		if netdev == "" {
			netdev = f.Netdev.Value
		}
		if f.PCI != "" {
			mend = strings.ReplaceAll(mend, "PCI", f.PCI)
		}
	}
	if netdev != "" {
		mend = strings.ReplaceAll(mend, "NETDEV", netdev)
	}
	return mend
}

var sortedNames = func() []string {
	l := make([]string, 0, len(troubles))
	for n := range troubles {
		l = append(l, n)
	}
	return sorted(l)
}()
