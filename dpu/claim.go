package dpu

import (
	"encoding/json"
	"fmt"
)

// Source is where evidence was read.
type Source string

// Sources of evidence.
const (
	FromSysfs       Source = "sysfs"
	FromDMI         Source = "dmi"
	FromVPD         Source = "vpd"
	FromPCIID       Source = "pci-id"
	FromDevlink     Source = "devlink"
	FromRDMANetlink Source = "rdma-netlink"
	FromRdmamap     Source = "rdmamap"
	FromMstconfig   Source = "mstconfig"
	FromNetdevName  Source = "phys_port_name"
	FromProgram     Source = "program" // what this binary was built for
)

// Evidence is one observation that supports a claim.
type Evidence struct {
	Source Source `json:"source"`
	Where  string `json:"where"` // the file, device or key that was read
	Says   string `json:"says"`  // what it said, or what follows from it
}

func (e Evidence) String() string { return fmt.Sprintf("%s %s: %s", e.Source, e.Where, e.Says) }

// Claim is a value and what proves it. A claim without evidence is Unknown and
// its Value is the zero value.
type Claim[T comparable] struct {
	Value    T
	Evidence []Evidence
}

// Known reports whether anything proves the value.
func (c Claim[T]) Known() bool { return len(c.Evidence) > 0 }

// String is the value, or "unknown".
func (c Claim[T]) String() string {
	if !c.Known() {
		return "unknown"
	}
	return fmt.Sprint(c.Value)
}

// claim adds an observation. The first value stays: callers ask the strongest
// source first. It reports false when e contradicts what is there.
func (c *Claim[T]) claim(v T, e Evidence) bool {
	if c.Known() && c.Value != v {
		return false
	}
	c.Value = v
	c.Evidence = append(c.Evidence, e)
	return true
}

type claimJSON[T comparable] struct {
	Value    *T         `json:"value"` // null: unknown
	Evidence []Evidence `json:"evidence,omitempty"`
}

// MarshalJSON writes an unknown value as null.
func (c Claim[T]) MarshalJSON() ([]byte, error) {
	if !c.Known() {
		return json.Marshal(claimJSON[T]{})
	}
	return json.Marshal(claimJSON[T]{&c.Value, c.Evidence})
}

// UnmarshalJSON reads what MarshalJSON writes. A value without evidence is no claim.
func (c *Claim[T]) UnmarshalJSON(b []byte) error {
	var j claimJSON[T]
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*c = Claim[T]{}
	if j.Value != nil && len(j.Evidence) > 0 {
		c.Value, c.Evidence = *j.Value, j.Evidence
	}
	return nil
}
