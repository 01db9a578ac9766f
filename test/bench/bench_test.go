package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// TestEveryCaseRuns tries all of it, with few of everything, but what takes long to
// build. It says nothing about speed.
func TestEveryCaseRuns(t *testing.T) {
	servers.Redis(t) // skips where there is none
	servers.StartPostgres(t)
	var names []string
	for _, c := range cases() {
		if c.name != "binary" && c.name != "scaling" {
			names = append(names, c.name)
		}
	}
	profiles := filepath.Join(t.TempDir(), "profiles")
	opts, err := parseOptions([]string{
		"-quick", "-only", strings.Join(names, "|"), "-profile", profiles,
	}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	r, err := measure(t.Context(), opts, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Figures {
		if (f.Verdict == notMade) != (f.Key == keyBinary) {
			t.Errorf("%s: %s", f.Key, f.Verdict)
		}
	}
	if r.Hot == nil || len(r.Hot.Steps) == 0 || len(r.Bursts) != 3 {
		t.Errorf("the hot path is %v, bursts are %v", r.Hot, r.Bursts)
	}
	for _, name := range []string{"respond", "spread", "redis"} {
		text, err := os.ReadFile(filepath.Join(profiles, name+".prof"))
		if err != nil {
			t.Error(err)
		}
		if p, err := profile.ParseData(text); err != nil || len(p.Sample) == 0 {
			t.Errorf("the profile of %s has no samples: %v", name, err)
		}
	}
	for key, want := range map[string]float64{keyStatements: 1, keyProfile: 2} {
		for _, f := range r.Figures {
			if f.Key == key && *f.Value != want {
				t.Errorf("%s: %g statements, want %g", key, *f.Value, want)
			}
		}
	}
}

// Two of the benchmarks, whose packages are quickly built.
func TestScalingIsOfEachBenchmark(t *testing.T) {
	b := &bench{scale: quickScale(), dir: t.TempDir(), report: newReport(quickScale(), cores{}), log: t.Output()}
	err := owned(t.Context(), func(o *owner) error { return b.scalingOf(o, parallel()[2:]) })
	if errors.Is(err, errOneProcessor) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(b.report.Scaling) != 2 {
		t.Fatalf("there are %v", b.report.Scaling)
	}
	for _, s := range b.report.Scaling {
		if len(s.One) != b.Rounds || len(s.Two) != b.Rounds || s.One[0] <= 0 || s.Two[0] <= 0 {
			t.Errorf("%s: %v on one processor, %v on two", s.Title, s.One, s.Two)
		}
	}
}

func TestOptions(t *testing.T) {
	tests := map[string]struct {
		args string
		code int
		says string
	}{
		"no such case":      {"-only (", exitUsage, "missing closing )"},
		"no rounds":         {"-rounds 0", exitUsage, "-rounds"},
		"an argument":       {"quick", exitUsage, `unexpected argument "quick"`},
		"help":              {"-help", exitOK, "keep-alive connections"},
		"no such report":    {"-from /nowhere/report.json", exitFailed, "no such file"},
		"half a second":     {"-profile-duration 1500ms", exitUsage, "whole seconds"},
		"a picture of none": {"-from report.json -flame hot.svg", exitUsage, "leave -from out"},
		"quick, but longer": {"-quick -duration 0s", exitUsage, "-duration"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var said strings.Builder
			if code := run(t.Context(), strings.Fields(test.args), &said, &said); code != test.code {
				t.Errorf("it ended with %d, want %d", code, test.code)
			}
			if !strings.Contains(said.String(), test.says) {
				t.Errorf("it says nothing of %q:\n%s", test.says, &said)
			}
		})
	}
}

func TestAnOwnerEndsWhatItStarted(t *testing.T) {
	var order []string
	err := owned(context.Background(), func(o *owner) error {
		o.Cleanup(func() { order = append(order, "first") })
		o.Cleanup(func() { order = append(order, "second") })
		o.Errorf("noted")
		o.Fatalf("%w", os.ErrDeadlineExceeded)
		return errors.New("it went on")
	})
	if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "noted") || strings.Contains(err.Error(), "went on") {
		t.Errorf("the error is %v", err)
	}
	if strings.Join(order, " ") != "second first" {
		t.Errorf("ended %v", order)
	}
	err = owned(context.Background(), func(o *owner) error {
		o.Skipf("redis-server")
		return nil
	})
	if !errors.Is(err, errMissing) {
		t.Errorf("the error is %v", err)
	}
}
