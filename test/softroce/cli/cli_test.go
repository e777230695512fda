package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/zrdma/zrdma/test/softroce"
)

func TestScript(t *testing.T) {
	phases, err := parseScript("# c\n\n[host1]\na\nb\n[*]\nc\n---\n[host0]\nd\n", 2)
	if err != nil {
		t.Fatal(err)
	}
	want := []phase{{scripts: map[int]string{0: "c\n", 1: "a\nb\nc\n"}}, {scripts: map[int]string{0: "d\n\n"}}}
	if !reflect.DeepEqual(phases, want) {
		t.Errorf("got %q", phases)
	}
	if phases[1].argv(1) != nil || phases[0].argv(1)[3] != "a\nb\nc\n" {
		t.Errorf("got %q", phases[0].argv(1))
	}
	for _, bad := range []string{"ls", "[host2]\n", "[hostx]\n", "[host0]\nls\n---\nls"} {
		if p, err := parseScript(bad, 2); err == nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%q: %q, %v", bad, p, err)
		}
	}
}

func TestPrefixer(t *testing.T) {
	var buf bytes.Buffer
	p := &prefixer{mu: &sync.Mutex{}, w: &buf, prefix: "h| "}
	for _, s := range []string{"a", "b\nc\nd", "", "e"} {
		if n, err := p.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	p.flush()
	p.flush()
	if got := buf.String(); got != "h| ab\nh| c\nh| de\n" {
		t.Errorf("got %q", got)
	}
}

func TestFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		ok   bool
	}{
		"command":           {[]string{"-hosts", "2", "--", "ls", "-l"}, true},
		"nothing":           {[]string{}, false},
		"script":            {[]string{"-script", "x"}, true},
		"script and argv":   {[]string{"-script", "x", "ls"}, false},
		"out":               {[]string{"-out", "/a:b", "ls"}, true},
		"out of which host": {[]string{"-hosts", "2", "-out", "/a:b", "ls"}, false},
		"out of all":        {[]string{"-hosts", "2", "-out", "/a:b*", "ls"}, true},
		"out of host 1":     {[]string{"-hosts", "2", "-out", "1:/a:b", "ls"}, true},
		"out of host 2":     {[]string{"-hosts", "2", "-out", "2:/a:b", "ls"}, false},
		"arch":              {[]string{"-arch", "arm64", "ls"}, true},
		"arch of which":     {[]string{"-arch", "x:arm64", "ls"}, false},
		"smbios":            {[]string{"-smbios", "0:type=1,product=a:b", "ls"}, true},
		"smbios of which":   {[]string{"-smbios", "type=1", "ls"}, false},
		"stdin for two":     {[]string{"-hosts", "2", "-stdin", "ls"}, false},
	} {
		r, argv, err := parseRun(tc.args)
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
		if name == "command" && (r.cfg.Hosts != 2 || len(argv) != 2) {
			t.Errorf("%s: %+v %q", name, r, argv)
		}
	}
}

func TestMachines(t *testing.T) {
	r, _, err := parseRun([]string{"-hosts", "3", "-arch", "1:arm64", "-smbios", "1:type=1,product=a:b", "-smbios", "1:type=2", "ls"})
	want := map[int]softroce.Machine{1: {Arch: "arm64", SMBIOS: []string{"type=1,product=a:b", "type=2"}}}
	if err != nil || !reflect.DeepEqual(r.cfg.Machines, want) || r.cfg.Arch != "" {
		t.Errorf("%+v, %v", r.cfg.Machines, err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"nonsense"}, {"run"}} {
		if code := Main(args); code != exitUsage {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
}

// A guest that could not have rdma_rxe is a failed set-up, not a skip.
func TestNoRxe(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"vmlinuz", "modules.dep"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("XDG_CACHE_HOME", dir)
	if code := Main([]string{"run", "-kernel", dir + "/vmlinuz", "-modules", dir, "--", "true"}); code != exitFail {
		t.Errorf("exit code %d", code)
	}
}
