package dpu

// Pairing is a card as its host sees it and as its own cores see it.
type Pairing struct {
	Host, SoC *Card
	Functions []FunctionPair
	Certain   bool       // false: only a hint says so
	Evidence  []Evidence // why they are one card
}

// FunctionPair is a host's function and the remote function that the SoC has for it.
type FunctionPair struct {
	Host, SoC *Function
	Evidence  Evidence
}

// Pair finds the cards that two inventories have in common: by board serial, then
// by the address of the host's PF, and, not for certain, by system image GUID. A
// card is paired once; where two would fit, none is.
func Pair(host, soc *Inventory) []Pairing {
	if host == nil || soc == nil {
		return nil
	}
	p := pairer{host: host, soc: soc, usedHost: map[*Card]bool{}, usedSoC: map[*Card]bool{}}
	p.round(func(h, s *Card) (Evidence, bool) {
		if !h.Serial.Known() || !s.Serial.Known() || h.Serial.Value != s.Serial.Value || !isSerial(h.Serial.Value) {
			return Evidence{}, false
		}
		e := h.Serial.Evidence[0]
		return Evidence{e.Source, e.Where, "both have serial " + h.Serial.Value}, true
	}, true)
	p.round(func(h, s *Card) (Evidence, bool) {
		for _, f := range functionPairs(h, s) {
			return f.Evidence, true
		}
		return Evidence{}, false
	}, true)
	p.round(func(h, s *Card) (Evidence, bool) {
		if !h.SysImageGUID.Known() || !s.SysImageGUID.Known() || h.SysImageGUID.Value != s.SysImageGUID.Value {
			return Evidence{}, false
		}
		e := h.SysImageGUID.Evidence[0]
		return Evidence{e.Source, e.Where, "both have system image GUID " + h.SysImageGUID.Value + ", which is a hint only"}, true
	}, false)
	return p.out
}

type pairer struct {
	host, soc         *Inventory
	usedHost, usedSoC map[*Card]bool
	out               []Pairing
}

// round pairs what is left by one criterion, where it picks exactly one each.
func (p *pairer) round(same func(h, s *Card) (Evidence, bool), certain bool) {
	var hits []Pairing
	perHost, perSoC := map[*Card]int{}, map[*Card]int{}
	for i := range p.host.Cards {
		for j := range p.soc.Cards {
			h, s := &p.host.Cards[i], &p.soc.Cards[j]
			if p.usedHost[h] || p.usedSoC[s] || conflicting(h, s) {
				continue
			}
			if e, ok := same(h, s); ok {
				hits = append(hits, Pairing{Host: h, SoC: s, Functions: functionPairs(h, s), Certain: certain, Evidence: []Evidence{e}})
				perHost[h]++
				perSoC[s]++
			}
		}
	}
	for _, x := range hits {
		if perHost[x.Host] == 1 && perSoC[x.SoC] == 1 {
			p.usedHost[x.Host], p.usedSoC[x.SoC] = true, true
			p.out = append(p.out, x)
		}
	}
}

// conflicting cards have serial numbers that differ: no weaker evidence overrules that.
func conflicting(h, s *Card) bool {
	return h.Serial.Known() && s.Serial.Known() && h.Serial.Value != s.Serial.Value
}

// functionPairs ties the host's functions to the SoC's remote ones by address.
func functionPairs(h, s *Card) (out []FunctionPair) {
	for i := range h.Functions {
		for j := range s.Functions {
			a, b := &h.Functions[i], &s.Functions[j]
			if !b.Remote || !a.MAC.Known() || !b.MAC.Known() || a.MAC.Value != b.MAC.Value || a.Remote {
				continue
			}
			if a.Kind.Known() && b.Kind.Known() && a.Kind.Value != b.Kind.Value {
				continue
			}
			e := b.MAC.Evidence[0]
			out = append(out, FunctionPair{a, b, Evidence{e.Source, e.Where, "both have address " + a.MAC.Value}})
		}
	}
	return out
}
