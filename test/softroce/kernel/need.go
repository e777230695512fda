package kernel

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Need reports programs that are not installed, with the command that installs
// them. It takes program -> Debian package.
func Need(programs map[string]string) error {
	var missing, packages []string
	for prog, pkg := range programs {
		if Program(prog) == "" {
			missing = append(missing, prog)
			packages = append(packages, pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	slices.Sort(packages)
	return fmt.Errorf("not installed: %s; run: apt-get install -y --no-install-recommends %s",
		strings.Join(missing, ", "), strings.Join(slices.Compact(packages), " "))
}

// Program finds a program by PATH or in the sbin folders, which the PATH of an
// ordinary user lacks. It returns "" if there is none.
func Program(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}
