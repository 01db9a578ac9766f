// Package allocations keeps tests of what steps of a request allocate. Times differ
// from machine to machine and from run to run; allocations do not, and where they
// grow, time does.
package allocations

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
)

var update = flag.Bool("update-allocations", false, "have the stored allocations be those of this run")

// Step is something that a request costs.
type Step struct {
	Name string
	Run  func(testing.TB)
}

// Cost of one run of a step.
type Cost struct {
	Allocations int `json:"allocations"`
	Bytes       int `json:"bytes"`
}

// Compare fails the test if a step allocates more than the file says. What the first
// step costs, which is to do nothing, is not counted as a cost of the others. Less is
// no failure, but makes a new file worth while: -update-allocations writes it.
func Compare(t *testing.T, file string, steps []Step) {
	t.Helper()
	if raceDetector {
		t.Log("nothing is compared: the race detector allocates")
		return
	}
	nothing := costOf(t, steps[0])
	got := make(map[string]Cost, len(steps)-1)
	for _, step := range steps[1:] {
		cost := costOf(t, step)
		got[step.Name] = Cost{cost.Allocations - nothing.Allocations, cost.Bytes - nothing.Bytes}
	}
	if *update {
		write(t, file, got)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]Cost
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	for name, cost := range got {
		t.Run(name, func(t *testing.T) {
			bound, known := want[name]
			if !known {
				t.Fatalf("it is not in %s: run the test with -update-allocations", file)
			}
			t.Logf("%d allocations, %d bytes", cost.Allocations, cost.Bytes)
			if cost.Allocations > bound.Allocations || cost.Bytes > bound.Bytes+tolerance(bound.Bytes) {
				t.Errorf("%d allocations of %d bytes, %d of %d are allowed: see where they come from "+
					"(go test -bench . -memprofile), or run the test with -update-allocations and say why in the commit",
					cost.Allocations, cost.Bytes, bound.Allocations, bound.Bytes)
			}
		})
	}
	for name := range want {
		if _, known := got[name]; !known {
			t.Errorf("%s has %q, which is no step any more", file, name)
		}
	}
}

// tolerance is for what others allocate meanwhile, and for maps, which differ a little.
func tolerance(bytes int) int { return 16 + bytes/32 }

func write(t *testing.T, file string, costs map[string]Cost) {
	t.Helper()
	text, err := json.MarshalIndent(costs, "", "\t")
	if err == nil {
		err = os.WriteFile(file, fmt.Appendln(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// costOf returns the least of several measurements: whatever else the process does
// adds to them.
func costOf(t *testing.T, step Step) (least Cost) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const rounds, runs = 5, 200
	for range runs { // caches and pools fill
		step.Run(t)
	}
	for round := range rounds {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			step.Run(t)
		}
		runtime.ReadMemStats(&after)
		cost := Cost{
			Allocations: int(after.Mallocs-before.Mallocs) / runs,
			Bytes:       int(after.TotalAlloc-before.TotalAlloc) / runs,
		}
		if round == 0 || cost.Bytes < least.Bytes {
			least.Bytes = cost.Bytes
		}
		if round == 0 || cost.Allocations < least.Allocations {
			least.Allocations = cost.Allocations
		}
	}
	return least
}
