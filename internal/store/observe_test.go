package store

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// witness is an Observer that remembers.
type witness struct {
	mu      sync.Mutex
	lookups []string
	ops     []string
	errs    []error
	states  []string
	logs    []string
	news    LogNews
}

func (w *witness) Lookup(level Level, result Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lookups = append(w.lookups, fmt.Sprint(level, " ", result))
}

func (w *witness) RedisOp(op Op, took time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := op.String() + " ok"
	if err != nil {
		text = op.String() + " failed"
		w.errs = append(w.errs, err)
	}
	if took < 0 {
		text += " before it began"
	}
	w.ops = append(w.ops, text)
}

func (w *witness) RedisState(state State, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := state.String()
	if (err != nil) != (state != Up) {
		text += fmt.Sprintf(" because of %v", err)
	}
	w.states = append(w.states, text)
	if err != nil {
		w.errs = append(w.errs, err)
	}
}

func (w *witness) LogState(state LogState, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := state.String()
	if (err != nil) != (state == LogBlind) {
		text += fmt.Sprintf(" because of %v", err)
	}
	w.logs = append(w.logs, text)
}

func (w *witness) LogNews(news LogNews) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.news.Flushes += news.Flushes
	w.news.Logouts += news.Logouts
	w.news.Generations += news.Generations
	w.news.Evicted += news.Evicted
	w.news.Malformed += news.Malformed
	w.news.Repeated += news.Repeated
	w.news.Collapsed += news.Collapsed
	if news.MalformedAt != "" {
		w.news.MalformedAt = news.MalformedAt
	}
}

// expect compares what was seen since the last call.
func (w *witness) expect(t *testing.T, what string, got *[]string, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(*got, want) {
		t.Errorf("%s: saw %q, want %q", what, *got, want)
	}
	*got = nil
}

// eventually waits for a condition that comes true soon.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("still not true: %s", what)
		}
		pass(time.Millisecond)
	}
}

// foundDown waits until a look-up is told that Redis is down.
func foundDown(t *testing.T, s *Store, w *witness) {
	t.Helper()
	_, want := alice()
	eventually(t, "it is told that Redis is down", func() bool {
		s.Begin("k", want, w).Get(t.Context())
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.states) > 0
	})
	w.expect(t, "states", &w.states, "down")
}

// pass lets time go by: the time of a synctest bubble, or that of a server
// which is slow on purpose.
func pass(d time.Duration) { <-time.After(d) }

func TestNamesAreAClosedSet(t *testing.T) {
	var names []string
	for level := None; level <= Redis; level++ {
		names = append(names, level.String())
	}
	for result := Miss; result <= Blind; result++ {
		names = append(names, result.String())
	}
	for op := OpGet; op <= OpClaim; op++ {
		names = append(names, op.String())
	}
	for state := Up; state <= Down; state++ {
		names = append(names, state.String())
	}
	for state := LogStarting; state <= LogBlind; state++ {
		names = append(names, state.String())
	}
	for shared := SharedNone; shared <= SharedPending; shared++ {
		names = append(names, shared.String())
	}
	want := []string{
		"none", "memory", "redis", "miss", "hit", "expired", "fenced", "mismatch", "invalid", "error", "skipped", "blind",
		"get", "set", "delete", "append", "claim", "up", "read_only", "down", "starting", "followed", "blind",
		"none", "done", "pending",
	}
	if !slices.Equal(names, want) {
		t.Errorf("got %q", names)
	}
}
