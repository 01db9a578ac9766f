package main

import (
	"bytes"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"html"
	"os"
	"slices"
	"strings"
	"text/template"

	"github.com/google/pprof/profile"
)

//go:embed flame.svg.tmpl
var flameTemplate string

// call is a function in a tree of calls: all the time that was spent in it, called in
// this way, and in what it called.
type call struct {
	function string
	time     int64
	own      int64 // of it in no other
	calls    []*call
}

// add puts a stack below c.
func (c *call) add(functions []string, time int64) {
	c.time += time
	if len(functions) == 0 {
		c.own += time
		return
	}
	at := slices.IndexFunc(c.calls, func(called *call) bool { return called.function == functions[0] })
	if at < 0 {
		at = len(c.calls)
		c.calls = append(c.calls, &call{function: functions[0]})
	}
	c.calls[at].add(functions[1:], time)
}

// legible is a stack without what tells nothing: Caddy's adapters that make a function
// a handler, and what the runtime and system calls do within.
func legible(functions []string) []string {
	var result []string
	var before kind
	for _, function := range functions {
		is := kindOf(function)
		inside := is == before && (is == ofRuntime || is == ofSystem)
		if inside || strings.HasSuffix(function, "caddyhttp.HandlerFunc.ServeHTTP") {
			continue
		}
		result, before = append(result, function), is
	}
	return result
}

// Measures of the picture, in pixels.
const (
	flameWidth   = 1000
	flameMargin  = 10
	flameTop     = 44
	flameHeading = 26 // of each panel
	flameRow     = 17
	flameLeast   = 2   // narrower ones are not drawn
	flameLetter  = 6.1 // about the width of one
	flameKey     = 165 // the legend's columns
	flameBottom  = 46
)

// flame is what the template draws: functions as boxes, as wide as they take time, below
// those that call them.
type flame struct {
	Width, Height int
	Panels        []flamePanel
	Legend        []flameKeyEntry
	Note          string
}

type flamePanel struct {
	Title string
	Y     int
	Boxes []flameBox
}

type flameBox struct {
	X, Y, Width, Label string // Y is of the box, Label what fits into it
	TextX, TextY       string
	Kind               kind
	Title              string
}

type flameKeyEntry struct {
	X, Y int
	Kind kind
	Text string
}

// wholeServer stands for a function that calls all others.
const wholeServer = "the server"

// newFlame draws a profile that was taken during that many requests.
func newFlame(p *profile.Profile, requests int, note string) flame {
	whole, module := &call{function: wholeServer}, &call{}
	own := make(map[kind]int64)
	for _, s := range stacksOf(p) {
		whole.add(legible(s.functions), s.time)
		if n := len(s.functions); n > 0 {
			own[kindOf(s.functions[n-1])] += s.time
		}
		if inside := s.inModule(); inside != nil {
			module.add(legible(inside), s.time)
		}
	}
	f := flame{Width: flameWidth, Note: html.EscapeString(note)}
	y := flameTop
	f.panel(&y, "A request as Caddy serves it", whole, whole.time, requests)
	if len(module.calls) > 0 {
		f.panel(&y, "The module's part of it, enlarged, without the handlers that come after it", module.calls[0], whole.time, requests)
	}
	y += 14
	for i, k := range kinds() {
		f.Legend = append(f.Legend, flameKeyEntry{
			X: flameMargin + i*flameKey, Y: y, Kind: k.kind,
			Text: fmt.Sprintf("%s %.0f %%", k.name, 100*float64(own[k.kind])/float64(max(whole.time, 1))),
		})
	}
	f.Height = y + flameBottom
	return f
}

// panel draws a tree of calls from y on, and moves y below it.
func (f *flame) panel(y *int, title string, root *call, all int64, requests int) {
	p := flamePanel{Title: html.EscapeString(title), Y: *y + flameHeading - 8}
	*y += flameHeading
	scale := float64(flameWidth-2*flameMargin) / float64(max(root.time, 1))
	lowest := 0
	var draw func(c *call, x float64, depth int)
	draw = func(c *call, x float64, depth int) {
		width := float64(c.time) * scale
		if width < flameLeast {
			return
		}
		lowest = max(lowest, depth+1)
		top := *y + depth*flameRow
		name, whose := shortName(c.function), kindOf(c.function)
		if c.function == wholeServer {
			whose = ofAll
		}
		p.Boxes = append(p.Boxes, flameBox{
			X: pixels(x), Y: pixels(float64(top)), Width: pixels(width - 0.5), Kind: whose,
			TextX: pixels(x + 3), TextY: pixels(float64(top + 12)), Label: html.EscapeString(fitted(name, width-6)),
			Title: html.EscapeString(fmt.Sprintf("%s: %.1f %%, %.2f µs of a request (itself %.2f µs)", name,
				100*float64(c.time)/float64(all), micro(c.time, requests), micro(c.own, requests))),
		})
		slices.SortFunc(c.calls, func(a, b *call) int {
			return cmp.Or(cmp.Compare(b.time, a.time), cmp.Compare(a.function, b.function))
		})
		for _, called := range c.calls {
			draw(called, x, depth+1)
			x += float64(called.time) * scale
		}
	}
	draw(root, flameMargin, 0)
	*y += lowest*flameRow + 8
	f.Panels = append(f.Panels, p)
}

func micro(nanoseconds int64, requests int) float64 {
	return float64(nanoseconds) / 1000 / float64(requests)
}

func pixels(v float64) string { return fmt.Sprintf("%.1f", v) }

// fitted is as much of a name as there is room for, "" if that is next to nothing.
func fitted(name string, width float64) string {
	room := int(width / flameLetter)
	letters := []rune(name)
	switch {
	case len(letters) <= room:
		return name
	case room < 4:
		return ""
	}
	return string(letters[:room-1]) + "…"
}

// errNoProfile says that a picture was wanted of what was not looked at.
var errNoProfile = errors.New("there is no profile of the case respond to draw")

// writeFlame draws the profile of the hot path into a file.
func (r *report) writeFlame(path string) error {
	if r.profile == nil {
		return errNoProfile
	}
	parsed, err := template.New("flame").Funcs(template.FuncMap{
		"plus": func(a, b int) int { return a + b },
	}).Parse(flameTemplate)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	note := "Each box is a function, as wide as it takes processor time, below the one that calls it. " +
		strings.Join([]string{r.Date, r.Machine, r.Go, "Caddy " + r.Caddy}, ", ")
	if err := parsed.Execute(&text, newFlame(r.profile, r.Hot.Requests, note)); err != nil {
		return err
	}
	return os.WriteFile(path, text.Bytes(), 0o644)
}
