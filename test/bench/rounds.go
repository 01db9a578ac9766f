package main

import (
	"context"
	"fmt"
	"time"
)

// contender is a server that is measured against others.
type contender struct {
	name string
	pids []int // of the processes whose time it takes
	load *load

	// prepare is called before each of its runs, if set: it puts another server and load
	// in place, as warm as they are to be.
	prepare func() error

	// run measures once.
	run func(ctx context.Context, l *load) (measured, error)
}

// series is what a contender came to, round by round.
type series struct {
	Name      string          `json:"name"`
	PerSecond []float64       `json:"per_second"`
	P50       []time.Duration `json:"p50_ns"`
	P99       []time.Duration `json:"p99_ns"`
	CPU       []float64       `json:"server_cpu_us_per_request,omitempty"`
}

// turns say how contenders take them.
type turns struct {
	rounds int
	warmup time.Duration // before the first turn of each
	leadIn time.Duration // before each other turn: the others have had the processor's caches
}

// compete lets the contenders run in turn, forward and backward, A, B, C, C, B, A, so
// that a machine that becomes slower does so for all of them, and none is always the
// first or always after the same one.
func compete(ctx context.Context, t turns, contenders ...*contender) ([]series, error) {
	results := make([]series, len(contenders))
	for round := range t.rounds {
		lead := t.leadIn
		if round == 0 {
			lead = t.warmup
		}
		for i := range contenders {
			if round%2 == 1 {
				i = len(contenders) - 1 - i
			}
			if err := contenders[i].measure(ctx, lead, &results[i]); err != nil {
				return nil, fmt.Errorf("%s: %w", contenders[i].name, err)
			}
		}
	}
	return results, nil
}

// measure lets a contender run, after a time that does not count.
func (c *contender) measure(ctx context.Context, lead time.Duration, s *series) error {
	s.Name = c.name
	if c.prepare != nil {
		if err := c.prepare(); err != nil {
			return err
		}
	} else if lead > 0 {
		if _, err := c.load.closed(ctx, lead, 0); err != nil {
			return fmt.Errorf("warming up: %w", err)
		}
	}
	before := cpuTime(c.pids)
	result, err := c.run(ctx, c.load)
	if err != nil {
		return err
	}
	spent := cpuTime(c.pids) - before
	s.PerSecond = append(s.PerSecond, result.perSecond())
	s.P50 = append(s.P50, result.Latencies.percentile(50))
	s.P99 = append(s.P99, result.Latencies.percentile(99))
	if before > 0 {
		s.CPU = append(s.CPU, float64(spent.Nanoseconds())/1000/float64(result.Requests))
	}
	return nil
}

// rate is the median of the throughputs.
func (s series) rate() float64 { return median(s.PerSecond) }

// p99s are the 99th percentiles in microseconds.
func (s series) p99s() []float64 {
	result := make([]float64, len(s.P99))
	for i, d := range s.P99 {
		result[i] = float64(d) / float64(time.Microsecond)
	}
	return result
}
