package store

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errTest = errors.New("connection refused")

func TestBreakerOpens(t *testing.T) {
	tests := map[string]struct {
		events string // f failure, a answer, . a quarter of a second
		open   bool
	}{
		"not after one failure":                       {"f", false},
		"not after two at once":                       {"ff", false},
		"after three in a row":                        {"fff", true},
		"not if the third follows an answer":          {"ffaff", false},
		"after two if a second lies between":          {"f....f", true},
		"not if less than a second lies between":      {"f...f", false},
		"not for a failure long after one that ended": {"fa........f", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(time.Now, func(context.Context) error { return errTest })
				defer b.stop()
				for _, event := range test.events {
					switch event {
					case 'f':
						b.failed(errTest)
					case 'a':
						b.answered()
					default:
						pass(250 * time.Millisecond)
					}
				}
				if b.allowsReads() == test.open || b.allowsWrites() == test.open {
					t.Errorf("reads are allowed: %t", b.allowsReads())
				}
			})
		})
	}
}

func TestBreakerProbesAloneAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var probes, running, most atomic.Int32
		var up atomic.Bool
		b := newBreaker(time.Now, func(context.Context) error {
			probes.Add(1)
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			pass(50 * time.Millisecond)
			if up.Load() {
				return nil
			}
			return errTest
		})
		defer b.stop()
		for range 100 {
			b.failed(errTest)
		}
		pass(10 * time.Second)
		if n := probes.Load(); n < 20 || n > 35 || most.Load() != 1 {
			t.Errorf("%d probes in ten seconds, %d at a time", n, most.Load())
		}
		up.Store(true)
		pass(probeEvery + 51*time.Millisecond)
		if !b.allowsReads() || !b.allowsWrites() {
			t.Error("it stays open")
		}
		n := probes.Load()
		pass(time.Minute)
		if probes.Load() != n {
			t.Error("it probes while it is closed")
		}
	})
}

func TestBreakerThatFlapsSlowsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(time.Now, func(context.Context) error { return nil }) // probes lie
		defer b.stop()
		opened := 0
		for start := time.Now(); time.Since(start) < time.Minute; pass(10 * time.Millisecond) {
			if b.allowsReads() {
				opened++
				for range tripAfter {
					b.failed(errTest)
				}
			}
		}
		if opened > 20 {
			t.Errorf("it opened %d times in a minute", opened)
		}
		pass(calmAfter + maxProbePause)
		for range tripAfter {
			b.failed(errTest)
		}
		pass(probeEvery + time.Millisecond)
		if !b.allowsReads() {
			t.Error("after a calm time it is still slow")
		}
	})
}

func TestBreakerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(time.Now, func(ctx context.Context) error {
			<-ctx.Done() // a probe that hangs
			return nil
		})
		for range tripAfter {
			b.failed(errTest)
		}
		pass(time.Second)
		b.stop() // returns, or synctest finds a deadlock
		if b.allowsReads() {
			t.Error("a stopped breaker lets reads through")
		}
		for range tripAfter {
			b.failed(errTest) // starts nothing, or synctest finds it left over
		}
	})
}
