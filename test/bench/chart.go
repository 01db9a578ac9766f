package main

import (
	"bytes"
	_ "embed"
	"html"
	"os"
	"strings"
	"text/template"
)

//go:embed chart.svg.tmpl
var chartTemplate string

// chart is what the template draws: throughputs as bars, relative to the bare server of
// their contest.
type chart struct {
	Groups []chartGroup
	Height int
	Note   string
}

type chartGroup struct {
	Title string
	Y     int
	Bars  []chartBar
}

type chartBar struct {
	Name  string
	Y     int
	Width int
	Text  string
	Class string
}

// Measures of the chart, in pixels.
const (
	chartTop    = 52
	chartTitle  = 26
	chartBarRow = 26
	chartGap    = 18
	chartFull   = 300 // the width of a bar of 1.0
	chartLabel  = 30
)

// drawn are the contests that the chart shows: their first server is 1.0.
func drawn() map[string]string {
	return map[string]string{
		"respond": "Caddy answers by itself",
		"proxy":   "Caddy in front of an application",
		"first":   "Every token is new",
		"redis":   "Every member comes from Redis",
	}
}

func (r *report) chart() chart {
	c := chart{Note: html.EscapeString(r.Date + ", " + r.Machine + ", " + r.Go + ", Caddy " + r.Caddy)}
	y := chartTop
	for _, contest := range r.Contests {
		title, ok := drawn()[contest.Name]
		if !ok {
			continue
		}
		g := chartGroup{Title: title, Y: y + chartTitle - 8}
		y += chartTitle
		for i, s := range contest.Series {
			if strings.HasPrefix(s.Name, "a socket") {
				continue
			}
			relative := median(ratios(s.PerSecond, contest.Series[0].PerSecond))
			class := "other"
			switch {
			case i == 0:
				class = "base"
			case strings.HasPrefix(s.Name, "member"):
				class = "ours"
			}
			g.Bars = append(g.Bars, chartBar{
				Name: html.EscapeString(s.Name), Y: y, Width: max(1, int(relative*chartFull)), Class: class,
				Text: ratio.format(relative) + "  (" + thousands(s.rate()) + "/s)",
			})
			y += chartBarRow
		}
		y += chartGap
		c.Groups = append(c.Groups, g)
	}
	c.Height = y + chartLabel
	return c
}

// writeChart draws the chart into a file.
func (r *report) writeChart(path string) error {
	parsed, err := template.New("chart").Funcs(template.FuncMap{
		"plus": func(a, b int) int { return a + b },
	}).Parse(chartTemplate)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := parsed.Execute(&text, r.chart()); err != nil {
		return err
	}
	return os.WriteFile(path, text.Bytes(), 0o644)
}
