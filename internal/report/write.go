package report

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
)

//go:embed chartjs/chart.umd.min.js
var chartJS string

//go:embed chartjs/LICENSE.md
var chartLicense string

//go:embed page.html
var page string

//go:embed page.css
var style string

//go:embed draw.js
var draw string

// JSON inside a script element: encoding/json escapes <, > and &, so that nothing
// in it can end the element.
var pageTemplate = template.Must(template.New("page").Parse(page))

// jsonChart is a chart as draw.js takes it.
type jsonChart struct {
	Kind   string       `json:"kind"`
	Title  string       `json:"title"`
	XTitle string       `json:"xTitle"`
	YTitle string       `json:"yTitle"`
	Labels []string     `json:"labels"`
	X      []float64    `json:"x"`
	LogX   bool         `json:"logX"`
	LogY   bool         `json:"logY"`
	Series []jsonSeries `json:"series"`
}

type jsonSeries struct {
	Name  string     `json:"name"`
	Stack string     `json:"stack"`
	Y     []*float64 `json:"y"`
	Low   []*float64 `json:"low"`
	High  []*float64 `json:"high"`
}

var kinds = [...]string{Bars: "bars", StackedBars: "stacked", Lines: "lines"}

// Write writes r as one HTML document.
func Write(w io.Writer, r Report) error {
	charts := make([]jsonChart, 0, len(r.Charts))
	for i := range r.Charts {
		c := &r.Charts[i]
		if err := c.check(); err != nil {
			return err
		}
		j := jsonChart{Kind: kinds[c.Kind], Title: c.Title, XTitle: c.XTitle, YTitle: c.YTitle, Labels: c.Labels, X: c.X, LogX: c.LogX, LogY: c.LogY}
		for _, s := range c.Series {
			j.Series = append(j.Series, jsonSeries{s.Name, s.Stack, numbers(s.Y), numbers(s.Low), numbers(s.High)})
		}
		charts = append(charts, j)
	}
	for i := range r.Tables {
		if err := r.Tables[i].check(); err != nil {
			return err
		}
	}
	drawn, err := json.Marshal(charts)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	data, err := json.Marshal(r.Data)
	if err != nil {
		return fmt.Errorf("report: the data: %w", err)
	}
	return pageTemplate.Execute(w, map[string]any{
		"R": r, "Charts": template.JS(drawn), "Data": template.JS(data), "HasData": r.Data != nil,
		"Style": template.CSS(style), "Library": template.JS(chartJS), "Draw": template.JS(draw), "License": chartLicense,
	})
}
