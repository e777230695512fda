package dpu

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fixture is a machine from testdata: a text archive whose section "tree" has a
// line for every file (path = value), link (path -> target) and folder (path/).
// Lines "$NAME = path" shorten the paths. As the kernel does, the class folders
// get a link to every device.
type fixture struct {
	t    testing.TB
	root string
	cfg  Config
}

var (
	section = regexp.MustCompile(`(?m)^-- (.+) --\n`)
	escape  = regexp.MustCompile(`\\x[0-9a-f]{2}`)
)

func load(t testing.TB, name string) Config {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	require.NoError(t, err)
	f := &fixture{t: t, root: t.TempDir(), cfg: Config{Arch: "amd64", Mstconfig: map[string]string{}}}
	f.cfg.Root = f.root
	text := string(b)
	heads := section.FindAllStringSubmatchIndex(text, -1)
	vpd := map[string][]byte{}
	for i, h := range heads {
		end := len(text)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		body := text[h[1]:end]
		kind, arg, _ := strings.Cut(text[h[2]:h[3]], " ")
		switch kind {
		case "tree":
			f.tree(body)
		case "arch":
			f.cfg.Arch = strings.TrimSpace(body)
		case "vpd":
			vpd[arg] = makeVPD(body)
		case "mstconfig":
			f.cfg.Mstconfig[arg] = body
		case "devlink.json":
			var l []DevlinkDevice
			require.NoError(t, json.Unmarshal([]byte(body), &l), name)
			f.cfg.Devlink = func(context.Context) ([]DevlinkDevice, error) { return l, nil }
		default:
			t.Fatalf("%s: unknown section %q", name, kind)
		}
	}
	for pci, b := range vpd {
		dir, err := filepath.EvalSymlinks(filepath.Join(f.root, busPCI, pci))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "vpd"), b, 0o600))
	}
	return f.cfg
}

func (f *fixture) tree(body string) {
	vars := []string{}
	for _, line := range strings.Split(body, "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		if strings.HasPrefix(line, "$") && strings.Contains(strings.SplitN(line, "/", 2)[0], " = ") {
			k, v, _ := strings.Cut(line, " = ")
			vars = append([]string{k, v}, vars...) // the newest first
			continue
		}
		line = strings.NewReplacer(vars...).Replace(line)
		if p, target, ok := strings.Cut(line, " -> "); ok {
			require.NoError(f.t, os.Symlink(target, f.mkdir(p)))
		} else if p, v, ok := strings.Cut(line, " = "); ok {
			v = escape.ReplaceAllStringFunc(strings.ReplaceAll(v, `\n`, "\n"), func(h string) string {
				c, err := strconv.ParseUint(h[2:], 16, 8)
				require.NoError(f.t, err)
				return string([]byte{byte(c)})
			})
			require.NoError(f.t, os.WriteFile(f.mkdir(p), []byte(v+"\n"), 0o600))
		} else if p, ok := strings.CutSuffix(line, "/"); ok {
			require.NoError(f.t, os.MkdirAll(filepath.Join(f.root, p), 0o700))
		} else {
			f.t.Fatalf("no file, link or folder: %q", line)
		}
	}
	f.classes()
}

// mkdir makes the folder that p is in.
func (f *fixture) mkdir(p string) string {
	p = filepath.Join(f.root, p)
	require.NoError(f.t, os.MkdirAll(filepath.Dir(p), 0o700))
	return p
}

// classes makes the links of sys/class and sys/bus.
func (f *fixture) classes() {
	devices := filepath.Join(f.root, "sys/devices")
	_ = filepath.WalkDir(devices, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		class := ""
		switch parent := filepath.Base(filepath.Dir(p)); {
		case parent == "net":
			class = classNet
		case parent == "infiniband":
			class = classIB
		case isPCI(filepath.Base(p)):
			if _, err := os.Stat(filepath.Join(p, "vendor")); err == nil {
				class = busPCI
			}
		}
		if class != "" {
			link := f.mkdir(filepath.Join(class, filepath.Base(p)))
			target, err := filepath.Rel(filepath.Dir(link), p)
			require.NoError(f.t, err)
			require.NoError(f.t, os.Symlink(target, link))
		}
		return nil
	})
}

// makeVPD encodes lines of a keyword and its value; ID is the identifier string.
func makeVPD(text string) []byte {
	var id, fields []byte
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		k, v, _ := strings.Cut(line, " ")
		if k == "ID" {
			id = []byte(v)
			continue
		}
		fields = append(append(fields, k[0], k[1], byte(len(v))), v...)
	}
	fields = append(fields, 'R', 'V', 1)
	b := append([]byte{vpdID, byte(len(id)), byte(len(id) >> 8)}, id...)
	b = append(b, vpdR, byte(len(fields)+1), byte((len(fields)+1)>>8))
	b = append(b, fields...)
	var sum byte
	for _, c := range b {
		sum += c
	}
	return append(b, -sum, vpdEnd)
}
