package dpu

import (
	"context"
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu/internal/fixture"
)

// load makes a machine from testdata and the configuration that looks at it.
func load(t testing.TB, name string) Config {
	t.Helper()
	m := fixture.Load(t, filepath.Join("testdata", name+".txt"))
	cfg := Config{Root: m.Root, Arch: m.Arch, Mstconfig: m.Mstconfig}
	if m.Devlink != nil {
		var l []DevlinkDevice
		require.NoError(t, json.Unmarshal(m.Devlink, &l), name)
		cfg.Devlink = func(context.Context) ([]DevlinkDevice, error) { return l, nil }
	}
	return cfg
}
