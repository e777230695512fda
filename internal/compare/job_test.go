package compare

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func small() Job {
	return Job{Bytes: 3<<20 + 1, Block: 64 << 10, Depth: 4, Data: 1 << 20, Source: Memory}
}

func TestJobs(t *testing.T) {
	require.NoError(t, small().Check())
	require.EqualValues(t, 49, small().Blocks(), "rounded up")
	for name, c := range map[string]struct {
		change func(*Job)
		want   string
	}{
		"nothing to move":  {func(j *Job) { j.Bytes = 0 }, "0 bytes to move"},
		"too much":         {func(j *Job) { j.Bytes = 1 << 60 }, "1 PiB"},
		"block of 0":       {func(j *Job) { j.Block = 0 }, "4 KiB to 64 MiB"},
		"block of 1 TiB":   {func(j *Job) { j.Block = 1 << 40 }, "4 KiB to 64 MiB"},
		"no whole pages":   {func(j *Job) { j.Block = 5000 }, "whole pages"},
		"depth of 0":       {func(j *Job) { j.Depth = 0 }, "1 to 1024"},
		"too much at once": {func(j *Job) { j.Block, j.Depth, j.Data = 64<<20, 64, 1<<40 }, "1 GiB"},
		"no data":          {func(j *Job) { j.Data = 0 }, "one block"},
		"as many as fly":   {func(j *Job) { j.Data = 4 * 64 << 10 }, "more blocks than are under way"},
		"too many blocks":  {func(j *Job) { j.Data, j.Block = 1<<40, 4096 }, "at most 1048576 blocks"},
		"source":           {func(j *Job) { j.Source = "tape" }, `"tape"`},
	} {
		t.Run(name, func(t *testing.T) {
			j := small()
			c.change(&j)
			require.ErrorContains(t, j.Check(), c.want)
		})
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 1023: "1023 bytes", 1024: "1 KiB", 1536: "1.5 KiB", 1 << 30: "1 GiB", 5 << 40: "5 TiB"} {
		require.Equal(t, want, Size(n))
	}
}

// No block is like another, in any 8 bytes of the first page.
func TestContent(t *testing.T) {
	seen := map[string]bool{}
	for i := range 100 {
		b := make([]byte, 4096)
		content(b, i)
		for at := 0; at < len(b); at += 8 {
			require.False(t, seen[string(b[at:at+8])])
			seen[string(b[at:at+8])] = true
		}
	}
}

// What the other end says reaches the operator's terminal.
func TestPlain(t *testing.T) {
	require.Equal(t, "no?[2Jdevice\nhere", plain("no\x1b[2Jdevice\nhere"))
}

// A client that only says that it is alive keeps its run, one that says nothing not.
func TestClientSilence(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	defer func(d time.Duration) { clientSilence = d }(clientSilence)
	clientSilence = time.Second
	r := serverRun{ctl: newControl(a)}
	client := newControl(b)
	go func() {
		for range 6 {
			time.Sleep(clientSilence / 4)
			_ = client.send(message{Type: msgAlive})
		}
		_ = client.send(message{Type: msgStop})
	}()
	m, err := r.untilSaid()
	require.NoError(t, err)
	require.Equal(t, msgStop, m.Type)
	_, err = r.untilSaid()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}
