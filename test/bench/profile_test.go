package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

// A profile that holds nothing must not be taken for one.
func TestBadProfilesAreErrors(t *testing.T) {
	of := func(kind string, length time.Duration, samples ...*profile.Sample) *profile.Profile {
		return &profile.Profile{
			SampleType:    []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: kind, Unit: "nanoseconds"}},
			DurationNanos: int64(length), Sample: samples,
		}
	}
	sample := &profile.Sample{Value: []int64{1, int64(10 * time.Millisecond)}}
	tests := map[string]struct {
		profile *profile.Profile
		says    string // "" for none
	}{
		"as long as wanted":   {of("cpu", 10*time.Second, sample), ""},
		"cut off":             {of("cpu", 5*time.Second, sample), "ended after 5s of 10s"},
		"empty":               {of("cpu", 10*time.Second), "empty"},
		"of something else":   {of("delay", 10*time.Second, sample), "no processor time"},
		"a little too short":  {of("cpu", 9900*time.Millisecond, sample), ""},
		"no profile whatever": {&profile.Profile{}, "no processor time"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := checkProfile(test.profile, 10*time.Second)
			if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("the error is %v, want %q", err, test.says)
			}
		})
	}
}
