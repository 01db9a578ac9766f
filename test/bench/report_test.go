package main

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	var hundred latencies
	for i := 100; i > 0; i-- {
		hundred.add(time.Duration(i))
	}
	tests := map[string]struct {
		of   latencies
		p    float64
		want time.Duration
	}{
		"none":                              {nil, 99, 0},
		"one":                               {latencies{7}, 99, 7},
		"the 99th of a hundred":             {hundred, 99, 99},
		"the largest":                       {hundred, 100, 100},
		"the smallest":                      {hundred, 0, 1},
		"the middle of an odd number":       {latencies{3, 1, 2}, 50, 2},
		"no rank between two: the next one": {latencies{10, 20}, 51, 20},
	}
	for name, test := range tests {
		if got := slices.Clone(test.of).percentile(test.p); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

func TestMedian(t *testing.T) {
	values := []float64{9, 1, 5}
	if got := median(values); got != 5 || values[0] != 9 {
		t.Errorf("the median of three is %g, and they became %v", got, values)
	}
	if got := median([]float64{4, 1, 2, 3}); got != 2.5 {
		t.Errorf("the median of four is %g", got)
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("the median of none is %g", got)
	}
}

func TestQuartiles(t *testing.T) {
	tests := map[string]struct{ values, want []float64 }{
		"one":      {[]float64{7}, []float64{7, 7}},
		"three":    {[]float64{3, 1, 2}, []float64{1, 3}},
		"eight":    {[]float64{8, 1, 7, 2, 6, 3, 5, 4}, []float64{2, 7}},
		"fifteen":  {[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, []float64{4, 12}},
		"all same": {[]float64{2, 2, 2, 2}, []float64{2, 2}},
	}
	for name, test := range tests {
		if low, high := quartiles(test.values); low != test.want[0] || high != test.want[1] {
			t.Errorf("%s: %g and %g, want %v", name, low, high, test.want)
		}
	}
}

// A round that stands still shows in what all came to, and not in the median.
func TestARatioTellsWhatAllRoundsCameToBesides(t *testing.T) {
	b := &bench{report: newReport(quickScale(), cores{})}
	of, to := series{PerSecond: []float64{90, 90, 0}}, series{PerSecond: []float64{100, 100, 100}}
	b.compared(keySize, of, to, "a remark")
	for _, f := range b.report.Figures {
		if f.Key == keySize && (*f.Value != 0.9 || f.Note != "0.60 over all rounds together; a remark") {
			t.Errorf("it is %g, and %s", *f.Value, f.Note)
		}
	}
}

// A machine that halves its speed after the first round changes no ratio, if those are
// of pairs; the ratio of the medians would be 1.
func TestRatiosAreOfThePairsOfARound(t *testing.T) {
	bare, ours := []float64{100, 50, 50}, []float64{90, 45, 100}
	if got := median(ratios(ours, bare)); got != 0.9 {
		t.Errorf("the ratio is %g", got)
	}
	if got := ratios([]float64{1, 2}, []float64{2}); len(got) != 1 {
		t.Errorf("rounds without a partner count: %v", got)
	}
}

func TestVerdicts(t *testing.T) {
	none := math.NaN()
	atLeast := bar{unit: ratio, least: 0.86, aim: 0.92}
	atMost := bar{unit: bytesUnit, least: 1536, aim: none, most: true}
	aimOnly := bar{unit: ratio, least: none, aim: 1.15, most: true}
	tests := map[string]struct {
		bar    bar
		value  float64
		want   verdict
		demand string
	}{
		"above the aim":              {atLeast, 0.95, aimMet, "≥ 0.86, aim ≥ 0.92"},
		"at the aim, as it is shown": {atLeast, 0.916, aimMet, "≥ 0.86, aim ≥ 0.92"},
		"between":                    {atLeast, 0.90, met, "≥ 0.86, aim ≥ 0.92"},
		"below":                      {atLeast, 0.31, missed, "≥ 0.86, aim ≥ 0.92"},
		"just below":                 {atLeast, 0.854, missed, "≥ 0.86, aim ≥ 0.92"},
		"not measured":               {atLeast, none, notMade, "≥ 0.86, aim ≥ 0.92"},
		"no more than":               {atMost, 1536, met, "≤ 1536 bytes"},
		"more than":                  {atMost, 1537, missed, "≤ 1536 bytes"},
		"an aim alone, met":          {aimOnly, 1.1, aimMet, "aim ≤ 1.15"},
		"an aim alone, not met":      {aimOnly, 1.2, aimLost, "aim ≤ 1.15"},
		"neither":                    {bar{unit: millis, least: none, aim: none}, 3, reported, ""},
	}
	for name, test := range tests {
		if got := test.bar.judge(test.value); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
		if got := test.bar.demand(); got != test.demand {
			t.Errorf("%s: the bar reads %q, want %q", name, got, test.demand)
		}
	}
}

func sampleReport() *report {
	r := newReport(fullScale(), cores{pinned: true})
	r.set(keyRespond, []float64{0.85, 0.90, 0.80}, "a remark")
	r.set(keyProxy, []float64{0.99}, "")
	r.addSeries("respond", series{
		Name: "bare respond", PerSecond: []float64{50_000, 52_000}, P50: []time.Duration{1000, 3000},
		P99: []time.Duration{10_000, 20_000}, CPU: []float64{18, 20},
	})
	r.addSeries("respond", series{Name: "member, <respond>", PerSecond: []float64{45_000, 46_800}, P50: []time.Duration{1}, P99: []time.Duration{1}})
	r.addShare("SQLite", 3.7)
	r.Scaling = []scaling{{"a lock", []float64{100, 110, 120}, []float64{50, 110, 80}}}
	r.Bursts = []burst{{"after many", []float64{30_000, 31_000, 35_000}, 24_000, 63.5}}
	r.Hot = &hotPath{Samples: 1500, Requests: 20_000, Request: 20, Module: 4, Steps: []hotStep{{"a step", []string{"f", "g"}, 0.25}}}
	return r
}

func TestTables(t *testing.T) {
	var text strings.Builder
	sampleReport().writeTables(&text)
	for _, line := range []string{
		"0.85 [0.80–0.90] | MISSED       | 3      | 0.80–0.90 | a remark |",
		"| 0.99             | aim met      |        |           |          |",
		"| respond | bare respond      | 2      | 51000              | 50000–52000 | 2µs | 15µs | 19.0                 |",
		"| SQLite              | 3.70 |",
	} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("the tables lack %q:\n%s", line, &text)
		}
	}
	text.Reset()
	sampleReport().Hot.write(&text)
	sampleReport().writeScaling(&text)
	sampleReport().writeBursts(&text)
	for _, line := range []string{
		"| a lock                           | 110       | 80        | 1.50          | 1.00–2.00 |",
		"| after many  | 31.0 | 30.0–35.0 | 24,000          | 63.5 |",
		"4.0 µs (20 %) are the module's", "| a step | 25 %                 | 1.00 | `f`, `g` |",
	} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("the table of steps lacks %q:\n%s", line, &text)
		}
	}
	if got := sampleReport().lost(); !slices.Equal(got, []string{keyRespond}) {
		t.Errorf("missed are %v", got)
	}
}

func TestAReportComesBackFromItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	var before, after strings.Builder
	r := sampleReport()
	r.writeTables(&before)
	r.writeScaling(&before)
	r.writeBursts(&before)
	r.Hot.write(&before)
	if err := r.writeJSON(path); err != nil {
		t.Fatal(err)
	}
	back, err := readReport(path)
	if err != nil {
		t.Fatal(err)
	}
	back.writeTables(&after)
	back.writeScaling(&after)
	back.writeBursts(&after)
	back.Hot.write(&after)
	if before.String() != after.String() {
		t.Errorf("it was\n%s\nand became\n%s", &before, &after)
	}
}

func TestEveryBarHasAKeyOfItsOwn(t *testing.T) {
	seen := make(map[string]bool)
	for _, b := range bars(fullScale()) {
		if seen[b.key] || b.title == "" {
			t.Errorf("bar %q comes twice, or has no title", b.key)
		}
		seen[b.key] = true
	}
}

func TestSymbolsAreAddedUpByModule(t *testing.T) {
	const listing = `
  4a3c20       1000 T github.com/redis/go-redis/v9.(*Client).Get
  4a3c21         24 R type:.eq.github.com/redis/go-redis/v9.Options
  4a3c22        300 T modernc.org/sqlite/lib._sqlite3Step
  4a3c23         50 T net/http.(*Server).Serve
  4a3c24    9000000 B modernc.org/libc.zeroed
                    U undefined
  4a3c25          7 t github.com/keycloak-cache-auth/caddy-keycloak-cache-auth.(*Handler).ServeHTTP
`
	got, err := addSymbols(strings.NewReader(listing))
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]symbolSize{
		"go-redis": {all: 1024, code: 1000}, "SQLite": {300, 300}, "standard library and others": {50, 50}, "the module itself": {7, 7},
	} {
		if got[name] != size {
			t.Errorf("%s has %+v, want %+v", name, got[name], size)
		}
	}
}

func TestWhatGoBenchmarksPrintIsRead(t *testing.T) {
	const printed = `
goos: linux
BenchmarkHandlerInParallel       	    7699	     48705 ns/op	    4103 B/op	      36 allocs/op
BenchmarkHandlerInParallel-2     	   14834	     21072 ns/op	    3961 B/op	      35 allocs/op
BenchmarkRefreshBurst/after_1000_tokens-2   	    2248	    185304 ns/op	         3.140 MiB	      1200 tokens
BenchmarkThatFailed
PASS
`
	got := parseGoBenchmark(printed)
	want := []struct {
		name, unit string
		value      float64
	}{{"HandlerInParallel", "ns/op", 48705}, {"HandlerInParallel", "allocs/op", 35}, {"RefreshBurst/after_1000_tokens", "MiB", 3.14}}
	if len(got) != len(want) {
		t.Fatalf("read %v", got)
	}
	for i, w := range want {
		if got[i].name != w.name || got[i].values[w.unit] != w.value {
			t.Errorf("line %d is %v, want %v", i, got[i], w)
		}
	}
}

func TestThousands(t *testing.T) {
	for value, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 52380.7: "52,380", 1234567: "1,234,567"} {
		if got := thousands(value); got != want {
			t.Errorf("%g: %s, want %s", value, got, want)
		}
	}
}
