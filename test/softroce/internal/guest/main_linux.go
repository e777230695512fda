package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"
)

// Main is the main function of the guest's binary.
func Main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "agent":
			exitOn("agent", runAgent())
			os.Exit(0)
		case "limits":
			exitOn("limits", execWithLimits(os.Args[2:]))
		}
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "softroce: this is the first process of a VM, not a command")
		os.Exit(2)
	}
	fmt.Println(Alive)
	if err := boot(); err != nil {
		fmt.Println(Failed + err.Error())
	}
	// No file system needs a sync; nothing can be done if this fails.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func exitOn(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "softroce-init: %s: %v\n", what, err)
		os.Exit(126)
	}
}

func boot() error {
	data, err := os.ReadFile("/" + ConfigFile)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	var cfg Config
	if err := json.Unmarshal(data, &cfg); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if err := mountEarly(); err != nil {
		return err
	}
	for _, f := range cfg.Modules {
		if err := loadModule(f); err != nil {
			return err
		}
	}
	var t timings
	t.mark("modules")
	if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	var wg sync.WaitGroup
	var netErr, rootErr error
	wg.Go(func() {
		netErr = setupNet(cfg.NICs)
		t.mark("network")
	})
	wg.Go(func() {
		rootErr = setupRoot(cfg)
		t.mark("root")
	})
	wg.Wait()
	if err := errors.Join(rootErr, netErr); err != nil {
		return err
	}
	return superviseAgent(&t, cfg)
}

// superviseAgent starts the agent and reaps orphans until it ends.
func superviseAgent(t *timings, cfg Config) error {
	var devices []string
	for _, n := range cfg.NICs {
		if n.Rxe != "" {
			devices = append(devices, n.Rxe)
		}
	}
	handover, err := json.Marshal(handover{Steps: t.steps, Devices: devices})
	if err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	// A child, because process 1 must wait for any process and the agent must
	// wait for its own.
	cmd := exec.Command("/proc/self/exe", "agent", string(handover))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait: %w", err)
		}
		if pid == cmd.Process.Pid {
			if ws.ExitStatus() != 0 {
				return fmt.Errorf("the agent ended: %v", ws)
			}
			return nil
		}
	}
}
