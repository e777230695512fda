package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ErrNoModule says that the kernel has no such module, built in or loadable.
var ErrNoModule = errors.New("no such module")

// Modules is what modules.dep and modules.builtin of one kernel say.
type Modules struct {
	dir     string
	deps    map[string][]string // path relative to dir -> paths it needs
	byName  map[string]string   // module name -> path
	builtin map[string]bool     // module name
}

// ReadModules reads the module lists of a folder such as /lib/modules/6.1.0-56-amd64.
func ReadModules(dir string) (*Modules, error) {
	m := &Modules{dir: dir, deps: map[string][]string{}, byName: map[string]string{}, builtin: map[string]bool{}}
	err := eachLine(filepath.Join(dir, "modules.dep"), func(line string) error {
		path, needs, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("modules.dep: bad line %q", line)
		}
		m.deps[path] = strings.Fields(needs)
		m.byName[moduleName(path)] = path
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	err = eachLine(filepath.Join(dir, "modules.builtin"), func(line string) error {
		m.builtin[moduleName(line)] = true
		return nil
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	return m, nil
}

// Has says whether the kernel has the module, loadable or built in.
func (m *Modules) Has(name string) bool {
	name = moduleName(name)
	return m.byName[name] != "" || m.builtin[name]
}

// Order lists the files to load, relative to the folder, so that the named
// modules end up loaded: everything stands behind what it needs, nothing twice,
// and modules that are built in are left out.
func (m *Modules) Order(names ...string) ([]string, error) {
	var order []string
	state := map[string]int{} // 1: being visited, 2: in order
	var visit func(path string) error
	visit = func(path string) error {
		switch state[path] {
		case 1:
			return fmt.Errorf("kernel: modules.dep has a cycle through %s", path)
		case 2:
			return nil
		}
		state[path] = 1
		needs, ok := m.deps[path]
		if !ok {
			return fmt.Errorf("kernel: %s is needed but not in modules.dep", path)
		}
		// depmod lists the nearest need first.
		for i := len(needs) - 1; i >= 0; i-- {
			if err := visit(needs[i]); err != nil {
				return err
			}
		}
		state[path] = 2
		order = append(order, path)
		return nil
	}
	for _, name := range names {
		name = moduleName(name)
		path := m.byName[name]
		if path == "" {
			if m.builtin[name] {
				continue
			}
			return nil, fmt.Errorf("kernel: %s: %w in this kernel", name, ErrNoModule)
		}
		if err := visit(path); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// moduleName turns a path into a name the way the kernel does: no folder, no
// suffixes, and "-" is "_".
func moduleName(path string) string {
	base := filepath.Base(path)
	if i := strings.Index(base, ".ko"); i >= 0 {
		base = base[:i]
	}
	return strings.ReplaceAll(base, "-", "_")
}

func eachLine(path string, do func(string) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if line := strings.TrimSpace(sc.Text()); line != "" {
			if err := do(line); err != nil {
				return err
			}
		}
	}
	return sc.Err()
}
