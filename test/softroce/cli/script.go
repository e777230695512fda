package cli

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// phase is what the hosts do at the same time: all of them run the command all,
// or each runs its shell script.
type phase struct {
	all     []string
	scripts map[int]string
}

func (p phase) argv(host int) []string {
	if p.all != nil {
		return p.all
	}
	if s, ok := p.scripts[host]; ok {
		return []string{"sh", "-eu", "-c", s, hostSection(host)}
	}
	return nil
}

func hostSection(host int) string { return fmt.Sprintf("host%d", host) }

func readScript(name string, hosts int) ([]phase, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	phases, err := parseScript(string(text), hosts)
	if err != nil {
		return nil, fmt.Errorf("script %s: %w", name, err)
	}
	return phases, nil
}

// parseScript reads sections that begin with [host0] or [*]; their lines are
// shell scripts. A line --- ends a phase.
func parseScript(text string, hosts int) ([]phase, error) {
	phases := []phase{{scripts: map[int]string{}}}
	var targets []int
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		cur := phases[len(phases)-1].scripts
		switch {
		case trimmed == "---":
			phases = append(phases, phase{scripts: map[int]string{}})
			targets = nil
		case trimmed == "[*]":
			targets = nil
			for h := range hosts {
				targets = append(targets, h)
			}
		case strings.HasPrefix(trimmed, "[host") && strings.HasSuffix(trimmed, "]"):
			h, err := strconv.Atoi(trimmed[len("[host") : len(trimmed)-1])
			if err != nil || h < 0 || h >= hosts {
				return nil, fmt.Errorf("line %d: %s: there are %d hosts, from 0 on", i+1, trimmed, hosts)
			}
			targets = []int{h}
		case len(targets) == 0 && trimmed != "" && !strings.HasPrefix(trimmed, "#"):
			return nil, fmt.Errorf("line %d: stands before any [host0] or [*]", i+1)
		default:
			for _, h := range targets {
				cur[h] += line + "\n"
			}
		}
	}
	return phases, nil
}
