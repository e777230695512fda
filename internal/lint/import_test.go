package lint

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// oneDoor: only internal/ibv speaks C.
func oneDoor(files []*file) (bad []string) {
	for _, f := range files {
		if f.dir() != "internal/ibv" && slices.Contains(f.imports(), "C") {
			bad = append(bad, f.name+`: import "C" outside internal/ibv`)
		}
	}
	return bad
}

func TestOnlyOneDoorToC(t *testing.T) {
	proves(t, oneDoor,
		fixture{"internal/ibv/a.go", "package ibv\nimport \"C\"\n", false},
		fixture{"verbs/a.go", "package verbs\n// import \"C\"\nconst s = `import \"C\"`\n", false},
		fixture{"verbs/a.go", "package verbs\nimport \"C\"\n", true},
		fixture{"verbs/a_test.go", "package verbs\nimport \"C\"\n", true})
	onTree(t, oneDoor)
}

// layers from the lowest; a package imports none of a layer above its own.
// A folder stands for everything below it.
var layers = [][]string{{"verbs"}, {"mr"}, {"qp"}, {"rpc", "rdmanet"}}

func layerOf(dir string) int {
	for i, l := range layers {
		for _, p := range l {
			if dir == p || strings.HasPrefix(dir, p+"/") {
				return i
			}
		}
	}
	return -1
}

func downwards(files []*file) (bad []string) {
	for _, f := range files {
		own := layerOf(f.dir())
		for _, i := range f.imports() {
			if own >= 0 && layerOf(i) > own {
				bad = append(bad, fmt.Sprintf("%s: imports %s, a layer above", f.name, i))
			}
		}
	}
	return bad
}

func imports(p string) string { return "package x\nimport _ \"" + p + "\"\n" }

func TestImportsPointDown(t *testing.T) {
	proves(t, downwards,
		fixture{"rpc/a.go", imports(module + "verbs"), false},
		fixture{"qp/a.go", imports(module + "mr"), false},
		fixture{"verbs/a.go", imports(module + "mr"), true},
		fixture{"verbs/rdmacm/a.go", imports(module + "qp"), true},
		fixture{"verbs/a_test.go", imports(module + "rpc"), true},
		fixture{"mr/a.go", imports(module + "qp/internal/x"), true},
		fixture{"verbs/a.go", imports("example.com/mr"), false},
		fixture{"rdmanet/a.go", imports(module + "qp"), false},
		fixture{"qp/a.go", imports(module + "rdmanet"), true})
	onTree(t, downwards)
}

// users of the door: besides itself, the packages that wrap it.
var users = []string{"internal/ibv", "verbs", "verbs/rdmacm", "verbs/rsocket"}

// hollow is where tests call, on ibv.Hollow, the verbs that no device at hand has.
const hollow = "test/suite"

func doorUsers(files []*file) (bad []string) {
	for _, f := range files {
		if f.isTest() && f.dir() == hollow {
			continue
		}
		if slices.Contains(f.imports(), "internal/ibv") && !slices.Contains(users, f.dir()) {
			bad = append(bad, f.name+": imports internal/ibv; use package verbs")
		}
	}
	return bad
}

func TestWhoUsesTheDoor(t *testing.T) {
	proves(t, doorUsers,
		fixture{"verbs/rsocket/a.go", imports(module + "internal/ibv"), false},
		fixture{"verbs/other/a.go", imports(module + "internal/ibv"), true},
		fixture{"mr/a_test.go", imports(module + "internal/ibv"), true},
		fixture{"test/suite/a_test.go", imports(module + "internal/ibv"), false},
		fixture{"test/suite/a.go", imports(module + "internal/ibv"), true})
	onTree(t, doorUsers)
}
