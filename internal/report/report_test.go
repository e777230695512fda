package report

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"
)

const nasty = `</script><img src=x onerror=alert(1)> & "quoted"`

func sample() Report {
	return Report{
		Title: nasty, Intro: nasty, Facts: []Fact{{"host", nasty}}, Notes: []string{nasty},
		Charts: []Chart{
			{Title: "bars", Caption: nasty, YTitle: "GB/s", Labels: []string{nasty, "b"}, Series: []Series{{Name: "x", Y: []float64{1, math.NaN()}, Low: []float64{0.5, math.NaN()}, High: []float64{2, math.NaN()}}}},
			{Title: "stacked", Kind: StackedBars, Labels: []string{"a", "b"}, Series: []Series{{Name: "user", Stack: "s", Y: []float64{1, 2}}, {Name: "system", Stack: "s", Y: []float64{1, 2}}}},
			{Title: "lines", Kind: Lines, LogX: true, XTitle: "bytes", X: []float64{1024, 4096}, Series: []Series{{Name: "y", Y: []float64{3, 4}}}},
		},
		Tables: []Table{{Title: "all", Header: []string{"way", "GB/s"}, Rows: [][]string{{nasty, "1.25"}, {"b", "-"}}}},
		Data:   map[string]string{"text": nasty},
	}
}

// nodes are the elements of a name, and what is written in them.
func nodes(t *testing.T, doc *html.Node, name string) (out []*html.Node) {
	t.Helper()
	for n := range doc.Descendants() {
		if n.Type == html.ElementNode && n.Data == name {
			out = append(out, n)
		}
	}
	return out
}

func text(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return b.String()
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func TestDocument(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, Write(&b, sample()))
	doc, err := html.Parse(&b)
	require.NoError(t, err)

	// Nothing that was text has become an element, and nothing is fetched.
	require.Empty(t, nodes(t, doc, "img"))
	require.Empty(t, nodes(t, doc, "link"))
	for _, s := range nodes(t, doc, "script") {
		require.Empty(t, attr(s, "src"))
	}
	require.Equal(t, nasty, text(nodes(t, doc, "h1")[0]))
	require.Equal(t, nasty, text(nodes(t, doc, "title")[0]))
	require.Equal(t, nasty, text(nodes(t, doc, "li")[0]))
	require.Len(t, nodes(t, doc, "canvas"), 3)
	cells := nodes(t, doc, "td")
	require.Len(t, cells, 4)
	require.Equal(t, nasty, text(cells[0]))
	require.Empty(t, attr(cells[0], "class"))
	require.Equal(t, "n", attr(cells[1], "class"))

	scripts := map[string]string{}
	code := ""
	for _, s := range nodes(t, doc, "script") {
		if id := attr(s, "id"); id != "" {
			scripts[id] = text(s)
		} else {
			code += text(s)
		}
	}
	require.Contains(t, code, "Chart.js v4")
	require.Contains(t, text(nodes(t, doc, "pre")[0]), "MIT License")
	var data map[string]string
	require.NoError(t, json.Unmarshal([]byte(scripts["data"]), &data))
	require.Equal(t, nasty, data["text"])
	var charts []jsonChart
	require.NoError(t, json.Unmarshal([]byte(scripts["charts"]), &charts))
	require.Len(t, charts, 3)
	require.Equal(t, []string{"bars", "stacked", "lines"}, []string{charts[0].Kind, charts[1].Kind, charts[2].Kind})
	require.Equal(t, nasty, charts[0].Labels[0])
	require.Equal(t, 1.0, *charts[0].Series[0].Y[0])
	require.Nil(t, charts[0].Series[0].Y[1], "what is not there")
	require.Equal(t, 2.0, *charts[0].Series[0].High[0])
}

func TestWithoutData(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, Write(&b, Report{Title: "empty"}))
	require.NotContains(t, b.String(), `id="data"`)
}

func TestWhatDoesNotFit(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Report)
		want   string
	}{
		"too few values":  {func(r *Report) { r.Charts[0].Series[0].Y = nil }, `series "x" has 0 values for 2 places`},
		"lines without x": {func(r *Report) { r.Charts[2].X = nil }, "for 0 places"},
		"half a whisker":  {func(r *Report) { r.Charts[0].Series[0].High = nil }, "2 lower and 0 upper"},
		"a short row":     {func(r *Report) { r.Tables[0].Rows[1] = []string{"b"} }, "row 1 has 1 cells for 2 columns"},
		"kind":            {func(r *Report) { r.Charts[0].Kind = 9 }, "no kind 9"},
		"data":            {func(r *Report) { r.Data = func() {} }, "the data"},
	} {
		t.Run(name, func(t *testing.T) {
			r := sample()
			c.change(&r)
			require.ErrorContains(t, Write(io.Discard, r), c.want)
		})
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestFullDisk(t *testing.T) {
	require.ErrorIs(t, Write(full{}, sample()), io.ErrShortWrite)
}
