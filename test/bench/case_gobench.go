package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"
)

// goRun is how long a benchmark beside the code runs at a time. It comes to its end
// after about twice as long, as it finds out first how often it can do what it does.
func (b *bench) goRun() time.Duration { return min(b.Duration, 300*time.Millisecond) }

// scaling is how a step fares on two processors, whose time a request then has.
type scaling struct {
	Title string    `json:"title"`
	One   []float64 `json:"ns_on_one"` // for each time, by the clock on the wall
	Two   []float64 `json:"ns_on_two"`
}

// parallel are the benchmarks of what requests share, and of the same without us.
func parallel() []goBenchmark {
	return []goBenchmark{
		{"a request through the handler, a member in memory, token seen", ".", "BenchmarkHandlerInParallel"},
		{"the same without the handler", ".", "BenchmarkNoHandlerInParallel"},
		{"a token that was seen", "./internal/token", "BenchmarkSeenInParallel"},
		{"a member in memory", "./internal/store", "BenchmarkMemoryInParallel"},
	}
}

// errOneProcessor says that there are not two processors to compare with one.
var errOneProcessor = errors.New("there is only one processor")

// scalingCase measures on one processor and on two what requests share: a lock that
// they wait for would show. The load of the other cases needs a processor of its own, so
// these are benchmarks without a server.
func (b *bench) scalingCase(o *owner) error { return b.scalingOf(o, parallel()) }

func (b *bench) scalingOf(o *owner, benchmarks []goBenchmark) error {
	if runtime.NumCPU() < 2 {
		return errOneProcessor
	}
	return b.cores.everywhere(o.ctx, func() error {
		programs, err := b.goTests(o.ctx, packagesOf(benchmarks)...)
		if err != nil {
			return err
		}
		rows := make([]scaling, len(benchmarks))
		for round := range b.fewRounds() {
			for i, g := range benchmarks {
				rows[i].Title = g.title
				for turn := range 2 {
					processors, into := 1, &rows[i].One
					if (round+turn)%2 == 1 {
						processors, into = 2, &rows[i].Two
					}
					results, err := b.runGoBenchmark(o.ctx, programs[g.pkg], g, processors, b.goRun())
					if err != nil {
						return err
					}
					*into = append(*into, results[0].values["ns/op"])
				}
			}
		}
		b.report.Scaling = rows
		return nil
	})
}

func packagesOf(benchmarks []goBenchmark) []string {
	packages := make([]string, len(benchmarks))
	for i, g := range benchmarks {
		packages[i] = g.pkg
	}
	return packages
}

// writeScaling writes how what requests share fares on two processors.
func (r *report) writeScaling(w io.Writer) {
	if len(r.Scaling) == 0 {
		return
	}
	rows := [][]string{{"On two processors instead of one", "ns on one", "ns on two", "Times as many", "Extremes"}}
	for _, s := range r.Scaling {
		gains := ratios(s.One, s.Two)
		low, high := bounds(gains)
		rows = append(rows, []string{
			s.Title, fmt.Sprintf("%.0f", median(s.One)), fmt.Sprintf("%.0f", median(s.Two)),
			ratio.format(median(gains)), ratio.format(low) + "–" + ratio.format(high),
		})
	}
	writeTable(w, rows)
}

// burst is what a new token costs after many others.
type burst struct {
	Title  string    `json:"title"`
	Nanos  []float64 `json:"ns_per_token"`
	Tokens float64   `json:"tokens_remembered"`
	MiB    float64   `json:"mib_remembered"`
}

// refreshBurst is a benchmark with one within it for each number of tokens.
func refreshBurst() goBenchmark {
	return goBenchmark{"", "./internal/token", "BenchmarkRefreshBurst"}
}

// burstCase measures what new tokens cost as more and more of them are remembered.
func (b *bench) burstCase(o *owner) error {
	return b.cores.everywhere(o.ctx, func() error {
		g := refreshBurst()
		programs, err := b.goTests(o.ctx, g.pkg)
		if err != nil {
			return err
		}
		var rows []burst
		for round := range b.fewRounds() {
			results, err := b.runGoBenchmark(o.ctx, programs[g.pkg], g, 1, b.goRun())
			if err != nil {
				return err
			}
			for i, result := range results {
				if round == 0 {
					_, inner, _ := strings.Cut(result.name, "/")
					rows = append(rows, burst{Title: strings.ReplaceAll(inner, "_", " ")})
				}
				rows[i].Nanos = append(rows[i].Nanos, result.values["ns/op"])
				rows[i].Tokens, rows[i].MiB = result.values["tokens"], result.values["MiB"]
			}
		}
		b.report.Bursts = rows
		return nil
	})
}

// writeBursts writes what new tokens cost.
func (r *report) writeBursts(w io.Writer) {
	if len(r.Bursts) == 0 {
		return
	}
	rows := [][]string{{"A new token", "µs", "Extremes", "Remembered then", "MiB"}}
	for _, one := range r.Bursts {
		low, high := bounds(one.Nanos)
		rows = append(rows, []string{
			one.Title, fmt.Sprintf("%.1f", median(one.Nanos)/1000), fmt.Sprintf("%.1f–%.1f", low/1000, high/1000),
			thousands(one.Tokens), fmt.Sprintf("%.1f", one.MiB),
		})
	}
	writeTable(w, rows)
}
