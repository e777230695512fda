package softroce

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// kvmProof is how long KVM has for the first sign of life of the guest's init.
// Where it works that takes about a second.
const kvmProof = 8 * time.Second

func accelFile(cache string) string { return filepath.Join(cache, "accel.json") }

// ForgetAccel removes what is remembered about KVM on this machine. cache is
// Config.Kernel.Cache, or "" for the default.
func ForgetAccel(cache string) error {
	if cache == "" {
		cfg, err := Config{}.withDefaults()
		if err != nil {
			return err
		}
		cache = cfg.Kernel.Cache
	}
	if err := os.Remove(accelFile(cache)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("softroce: forget accel: %w", err)
	}
	return nil
}

// accelKey changes with everything that may change the answer.
func accelKey(program, guestKernel string) string {
	host, _ := exec.Command("uname", "-rv").Output() // "" is a key too
	version, _ := exec.Command(program, "--version").Output()
	first, _, _ := strings.Cut(string(version), "\n")
	return strings.Join([]string{strings.TrimSpace(string(host)), first, guestKernel}, "; ")
}

func recallAccel(cache, key string) string {
	return readAccels(cache)[key]
}

func readAccels(cache string) map[string]string {
	m := map[string]string{}
	// A file that is missing or bad is the same as nothing remembered.
	if b, err := os.ReadFile(accelFile(cache)); err == nil && json.Unmarshal(b, &m) != nil {
		return map[string]string{}
	}
	return m
}

// rememberAccel may lose the answer of another process that writes at the same
// time; it will ask again.
func rememberAccel(cache, key, accel string) error {
	m := readAccels(cache)
	m[key] = accel
	b, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(cache, ".accel-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(b, '\n'))
	if err := errors.Join(err, tmp.Close()); err != nil {
		_ = os.Remove(tmp.Name())
		return err
	}
	return os.Rename(tmp.Name(), accelFile(cache))
}

// kvmUsable says whether KVM is worth a try.
func kvmUsable() bool {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
}
