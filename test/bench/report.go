package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"
)

// report is all that a run found out.
type report struct {
	Date      string    `json:"date"`
	Machine   string    `json:"machine"`
	Processes string    `json:"processes"` // where they ran
	Go        string    `json:"go"`
	Caddy     string    `json:"caddy"`
	Commit    string    `json:"commit,omitempty"`
	Scale     scale     `json:"scale"`
	Took      string    `json:"took"`
	Figures   []figure  `json:"figures"`
	Contests  []contest `json:"contests"`
	Hot       *hotPath  `json:"hot_path,omitempty"`
	Scaling   []scaling `json:"scaling,omitempty"`
	Bursts    []burst   `json:"bursts,omitempty"`
	Shares    []share   `json:"binary_shares_mb,omitempty"`

	profile *profile.Profile // that Hot is of
}

// figure is what was measured for a bar.
type figure struct {
	Key     string    `json:"key"`
	Title   string    `json:"title"`
	Demand  string    `json:"demand"`
	Value   *float64  `json:"value"` // the median of the rounds; null if it was not measured
	Rounds  []float64 `json:"rounds,omitempty"`
	Shown   string    `json:"shown"`
	Verdict verdict   `json:"verdict"`
	Note    string    `json:"note,omitempty"`
}

// contest is who was measured against whom.
type contest struct {
	Name   string   `json:"name"`
	Series []series `json:"series"`
}

// share is a part of the binary, in MB.
type share struct {
	Name string  `json:"name"`
	MB   float64 `json:"mb"`
}

func newReport(s scale, where cores) *report {
	r := &report{
		Date:      time.Now().UTC().Format(time.DateOnly),
		Machine:   fmt.Sprintf("%d × %s, %s/%s", runtime.NumCPU(), processor(), runtime.GOOS, runtime.GOARCH),
		Processes: where.String(),
		Go:        runtime.Version(),
		Scale:     s,
	}
	// what cannot be found out is left out
	r.Caddy, _ = output("go", "list", "-m", "-f", "{{.Version}}", "github.com/caddyserver/caddy/v2")
	r.Commit, _ = output("git", "rev-parse", "--short", "HEAD")
	for _, b := range bars(s) {
		r.Figures = append(r.Figures, figure{Key: b.key, Title: b.title, Demand: b.demand(), Shown: "–", Verdict: notMade})
	}
	return r
}

// output is what a command prints, in the module's directory.
func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = moduleDir()
	text, err := cmd.Output()
	return strings.TrimSpace(string(text)), err
}

// set fills in a figure: the median of what the rounds came to.
func (r *report) set(key string, rounds []float64, note string) {
	value := median(rounds)
	for i, b := range bars(r.Scale) {
		if b.key != key || math.IsNaN(value) {
			continue
		}
		f := &r.Figures[i]
		f.Value, f.Rounds, f.Note = &value, rounds, note
		f.Verdict, f.Shown = b.judge(value), b.unit.format(value)
	}
}

// cells are a figure's row in the table: of ratios with the rounds they are the median
// of, half of which are in the brackets.
func (f figure) cells() []string {
	shown, count, extremes := f.Shown, "", ""
	if f.Value != nil && len(f.Rounds) > 1 {
		count = strconv.Itoa(len(f.Rounds))
		if f.unit() == ratio {
			low, high := quartiles(f.Rounds)
			shown += fmt.Sprintf(" [%s–%s]", ratio.format(low), ratio.format(high))
			low, high = bounds(f.Rounds)
			extremes = ratio.format(low) + "–" + ratio.format(high)
		}
	}
	return []string{f.Title, f.Demand, shown, string(f.Verdict), count, extremes, f.Note}
}

func (f figure) unit() unit {
	for _, b := range bars(scale{}) {
		if b.key == f.Key {
			return b.unit
		}
	}
	return ""
}

func bounds(values []float64) (low, high float64) {
	low, high = values[0], values[0]
	for _, v := range values[1:] {
		low, high = min(low, v), max(high, v)
	}
	return low, high
}

func (r *report) addSeries(name string, s series) {
	if last := len(r.Contests) - 1; last < 0 || r.Contests[last].Name != name {
		r.Contests = append(r.Contests, contest{Name: name})
	}
	c := &r.Contests[len(r.Contests)-1]
	c.Series = append(c.Series, s)
}

func (r *report) addShare(name string, mb float64) { r.Shares = append(r.Shares, share{name, mb}) }

// writeTables writes the report as Markdown.
func (r *report) writeTables(w io.Writer) {
	fmt.Fprintf(w, "%s, %s; %s; Caddy %s, %s. Turns of %s, %d connections; %s in all.\n\n",
		r.Date, r.Machine, r.Processes, r.Caddy, r.Go, r.Scale.Duration, r.Scale.Connections, r.Took)
	rows := [][]string{{"Case", "Bar", "Measured", "", "Rounds", "Extremes", "Remarks"}}
	for _, f := range r.Figures {
		rows = append(rows, f.cells())
	}
	writeTable(w, rows)
	if len(r.Contests) > 0 {
		rows = [][]string{{"Contest", "Server", "Rounds", "Requests/s, median", "[min–max]", "p50", "p99", "Processor µs/request"}}
		for _, c := range r.Contests {
			for _, s := range c.Series {
				rows = append(rows, append([]string{c.Name}, s.row()...))
			}
		}
		fmt.Fprintln(w)
		writeTable(w, rows)
	}
	if len(r.Shares) > 0 {
		rows = [][]string{{"Share of the binary", "MB"}}
		for _, s := range r.Shares {
			rows = append(rows, []string{s.Name, fmt.Sprintf("%.2f", s.MB)})
		}
		fmt.Fprintln(w)
		writeTable(w, rows)
	}
}

func (s series) row() []string {
	low, high := bounds(s.PerSecond)
	cpu := "–"
	if len(s.CPU) > 0 {
		cpu = fmt.Sprintf("%.1f", median(s.CPU))
	}
	return []string{
		s.Name, strconv.Itoa(len(s.PerSecond)), fmt.Sprintf("%.0f", s.rate()), fmt.Sprintf("%.0f–%.0f", low, high),
		middle(s.P50).String(), middle(s.P99).String(), cpu,
	}
}

func middle(durations []time.Duration) time.Duration {
	values := make([]float64, len(durations))
	for i, d := range durations {
		values[i] = float64(d)
	}
	return time.Duration(median(values)).Round(time.Microsecond)
}

// writeTable writes a table as Markdown that is also legible as it is. Its first row is
// the head.
func writeTable(w io.Writer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	line := func(cells []string, fill string) {
		for i, cell := range cells {
			fmt.Fprint(w, "| ", cell, strings.Repeat(fill, widths[i]-len([]rune(cell))), " ")
		}
		fmt.Fprintln(w, "|")
	}
	line(rows[0], " ")
	line(make([]string, len(widths)), "-")
	for _, row := range rows[1:] {
		line(row, " ")
	}
}

// writeJSON writes the report to a file.
func (r *report) writeJSON(path string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// readReport reads what writeJSON wrote.
func readReport(path string) (*report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(report)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for i, f := range r.Figures { // earlier versions put the brackets here
		if f.Value != nil {
			r.Figures[i].Shown = f.unit().format(*f.Value)
		}
	}
	return r, nil
}

// lost are the figures that do not meet their bars.
func (r *report) lost() []string {
	var keys []string
	for _, f := range r.Figures {
		if f.Verdict == missed {
			keys = append(keys, f.Key)
		}
	}
	return keys
}
