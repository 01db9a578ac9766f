package main

import (
	"context"
	"strings"
	"testing"
)

// No contender may always be the first of its round, nor always come after the same one.
func TestContendersTakeTurnsForwardAndBackward(t *testing.T) {
	var order []string
	contenderOf := func(name string) *contender {
		return &contender{
			name:    name,
			prepare: func() error { return nil },
			run: func(context.Context, *load) (measured, error) {
				order = append(order, name)
				return measured{Requests: len(order), Elapsed: 1}, nil
			},
		}
	}
	results, err := compete(t.Context(), turns{rounds: 3}, contenderOf("A"), contenderOf("B"), contenderOf("C"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, ""); got != "ABCCBAABC" {
		t.Errorf("they took turns %s", got)
	}
	for i, want := range []string{"A", "B", "C"} {
		if results[i].Name != want || len(results[i].PerSecond) != 3 {
			t.Errorf("%s has the rounds of %s: %v", want, results[i].Name, results[i].PerSecond)
		}
	}
}
