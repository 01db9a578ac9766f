package main

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// goBenchmark is one beside the module's code.
type goBenchmark struct{ title, pkg, name string }

// goTests compiles the tests of packages, so that their benchmarks can be run again and
// again, and returns where the programs are.
func (b *bench) goTests(ctx context.Context, packages ...string) (map[string]string, error) {
	programs := make(map[string]string)
	for _, pkg := range packages {
		if programs[pkg] != "" {
			continue
		}
		path := filepath.Join(b.dir, fmt.Sprintf("test-%d", len(programs)))
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", path, pkg)
		cmd.Dir = moduleDir()
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go test -c %s: %w\n%s", pkg, err, out)
		}
		programs[pkg] = path
	}
	return programs, nil
}

// runGoBenchmark runs a benchmark and those within it once.
func (b *bench) runGoBenchmark(ctx context.Context, program string, g goBenchmark, processors int, length time.Duration) ([]goResult, error) {
	cmd := exec.CommandContext(ctx, program, "-test.run=^$", "-test.bench=^"+g.name+"$",
		"-test.cpu="+strconv.Itoa(processors), "-test.benchtime="+length.String())
	cmd.Dir = filepath.Join(moduleDir(), g.pkg)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", g.name, err, out)
	}
	results := parseGoBenchmark(string(out))
	if len(results) == 0 {
		return nil, fmt.Errorf("%s: it printed no result:\n%s", g.name, out)
	}
	return results, nil
}

// goResult is a line that a benchmark printed.
type goResult struct {
	name   string             // without Benchmark and the number of processors
	values map[string]float64 // by unit: ns/op and the like
}

var processorsSuffix = regexp.MustCompile(`-\d+$`)

// parseGoBenchmark reads what `go test -bench` prints: name, number of rounds, and then
// values and their units in turn.
func parseGoBenchmark(text string) []goResult {
	var results []goResult
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		r := goResult{
			name:   processorsSuffix.ReplaceAllString(strings.TrimPrefix(fields[0], "Benchmark"), ""),
			values: make(map[string]float64),
		}
		for i := 2; i+1 < len(fields); i += 2 {
			if value, err := strconv.ParseFloat(fields[i], 64); err == nil {
				r.values[fields[i+1]] = value
			}
		}
		results = append(results, r)
	}
	return results
}
