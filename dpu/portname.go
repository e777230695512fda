package dpu

import (
	"regexp"
	"strconv"
)

// portName is what a representor's phys_port_name says: p0, pf0, pf0vf3, pf0sf8,
// and with (c1) or c1 in front the port of another controller.
type portName struct {
	Physical   bool
	Controller int // 0 unless named
	PF, VF, SF int // -1: not named
}

var (
	portPhysical = regexp.MustCompile(`^p(\d{1,5})$`)
	portFunction = regexp.MustCompile(`^(?:\(c(\d{1,5})\)|c(\d{1,5}))?pf(\d{1,5})(?:(vf|sf)(\d{1,9}))?$`)
)

func parsePortName(s string) (portName, bool) {
	n := portName{PF: -1, VF: -1, SF: -1}
	if m := portPhysical.FindStringSubmatch(s); m != nil {
		n.Physical = true
		return n, true
	}
	m := portFunction.FindStringSubmatch(s)
	if m == nil {
		return n, false
	}
	n.Controller, _ = strconv.Atoi(m[1] + m[2])
	n.PF, _ = strconv.Atoi(m[3])
	switch i, _ := strconv.Atoi(m[5]); m[4] {
	case "vf":
		n.VF = i
	case "sf":
		n.SF = i
	}
	return n, true
}
