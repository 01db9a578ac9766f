package main

import (
	"math"
	"slices"
	"time"
)

// latencies are all of a run, each as it was: a run has a million at most, and buckets
// would round what is compared.
type latencies []time.Duration

func (l *latencies) add(d time.Duration) { *l = append(*l, d) }

// percentile returns the smallest latency that is not exceeded by p percent, by the
// nearest-rank method. It is 0 if there are none. It sorts l.
func (l latencies) percentile(p float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	slices.Sort(l)
	rank := int(math.Ceil(p / 100 * float64(len(l))))
	return l[min(max(rank, 1), len(l))-1]
}

// median returns the middle of the values, or the mean of the two in the middle. It is
// NaN if there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// mean is NaN if there are no values.
func mean(values []float64) float64 {
	var sum float64
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// quartiles are the values that a quarter of them are not above, and not below: by the
// nearest-rank method, so that they are values that occurred.
func quartiles(values []float64) (low, high float64) {
	sorted := slices.Sorted(slices.Values(values))
	rank := (len(sorted) + 3) / 4
	return sorted[rank-1], sorted[len(sorted)-rank]
}

// ratios divides pair by pair: what was measured in the same round met the same
// machine. The result is as long as the shorter of the two.
func ratios(of, to []float64) []float64 {
	n := min(len(of), len(to))
	result := make([]float64, n)
	for i := range n {
		result[i] = of[i] / to[i]
	}
	return result
}
