package dpu

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
)

// Mstconfig is what `mstconfig query` printed for one device.
type Mstconfig struct {
	DeviceType  string // "BlueField3"
	Name        string // the part number
	Description string
	Device      string            // as it was named on the command line
	Params      map[string]string // parameter to value, as in "ECPF(0)"
	InForce     bool              // the values are the current ones, not those of the next boot
}

// ParseMstconfig reads the text of `mstconfig -d PCI query`, with -e too. Lines
// that it does not know are passed over; text without any parameter is an error.
func ParseMstconfig(text string) (Mstconfig, error) {
	m := Mstconfig{Params: map[string]string{}}
	column := -1 // of the value that counts; -1: not in the table yet
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if key, value, ok := strings.Cut(line, ":"); ok && column < 0 {
			value = strings.TrimSpace(value)
			switch strings.TrimSpace(key) {
			case "Device type":
				m.DeviceType = value
			case "Name":
				m.Name = value
			case "Description":
				m.Description = value
			case "Device":
				m.Device = value
			}
		}
		if head, ok := strings.CutPrefix(line, "Configurations:"); ok {
			column = 0
			words := strings.Fields(strings.ReplaceAll(head, "Next Boot", "Next"))
			for i, w := range words {
				if w == "Current" {
					column, m.InForce = i, true
				}
			}
			continue
		}
		f := strings.Fields(strings.TrimPrefix(line, "*"))
		if column < 0 || len(f) < 2+column || !isParam(f[0]) {
			continue
		}
		m.Params[f[0]] = f[1+column]
	}
	if err := sc.Err(); err != nil {
		return m, fmt.Errorf("dpu: mstconfig text: %w", err)
	}
	if len(m.Params) == 0 {
		return m, errors.New("dpu: mstconfig text: no parameters; hand in what `mstconfig -d PCI query` prints")
	}
	return m, nil
}

func isParam(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return len(s) > 2
}

// value is a parameter's word without its number: "ECPF" of "ECPF(0)".
func (m *Mstconfig) value(param string) string {
	v, _, _ := strings.Cut(m.Params[param], "(")
	return v
}

// Mode is the mode that the parameters add up to, and those that say so; "" when
// they are missing or contradict each other.
func (m *Mstconfig) Mode() (Mode, string) {
	switch model := m.value("INTERNAL_CPU_MODEL"); {
	case strings.HasPrefix(model, "SEPA"):
		return ModeSeparated, "INTERNAL_CPU_MODEL=" + model
	case model != "EMBEDDED_CPU":
		return "", ""
	}
	var owners []string
	for _, p := range []string{"INTERNAL_CPU_PAGE_SUPPLIER", "INTERNAL_CPU_ESWITCH_MANAGER", "INTERNAL_CPU_IB_VPORT0"} {
		if v := m.value(p); v != "" {
			owners = append(owners, v)
		}
	}
	for _, o := range owners {
		if o != owners[0] {
			return "", "" // half of each: no mode that NVIDIA names
		}
	}
	switch engine := m.value("INTERNAL_CPU_OFFLOAD_ENGINE"); {
	case engine == "DISABLED":
		// On BlueField-3 this alone makes a NIC of it.
		return ModeNIC, "INTERNAL_CPU_OFFLOAD_ENGINE=DISABLED"
	case engine == "ENABLED" && len(owners) > 0 && owners[0] == "ECPF":
		return ModeDPU, "INTERNAL_CPU_OFFLOAD_ENGINE=ENABLED, switch and pages are the ECPF's"
	}
	return "", ""
}
