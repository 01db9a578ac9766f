package store

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestClaimIsFirstOnce(t *testing.T) {
	f, clock := newFakeRedis(t), newTestClock()
	here, there, alone := sharing(t, f, clock.now), sharing(t, f, clock.now), newTestStore(t, Config{Now: clock.now})
	claim := func(what string, s *Store, id string, want bool) {
		t.Helper()
		if first, err := s.Claim(t.Context(), id, time.Minute, nil); first != want || err != nil {
			t.Errorf("%s: first %t, error %v", what, first, err)
		}
	}
	claim("new", here, "a", true)
	claim("replayed here", here, "a", false)
	claim("replayed on another node", there, "a", false)
	claim("another id", there, "b", true)
	claim("without Redis", alone, "a", true)
	claim("replayed without Redis", alone, "a", false)
	clock.advance(time.Minute - 1)
	claim("at the end of its life", alone, "a", false)
	clock.advance(1)
	claim("after its life", alone, "a", true)
	for _, call := range []struct {
		id   string
		life time.Duration
	}{{"", time.Minute}, {"c", 0}, {"c", -1}} {
		if first, err := here.Claim(t.Context(), call.id, call.life, nil); first || err == nil {
			t.Errorf("%+v: first %t, error %v", call, first, err)
		}
	}
}

func TestClaimWithoutAnswerIsTheNodesOwn(t *testing.T) {
	for name, reply := range map[string]string{"no answer": drop, "a refusal": "-READONLY no"} {
		t.Run(name, func(t *testing.T) {
			f, w := newFakeRedis(t), &witness{}
			s := sharing(t, f, nil)
			f.answer(reply, "SET")
			if first, err := s.Claim(t.Context(), "a", time.Minute, w); !first || !errors.Is(err, ErrUnavailable) {
				t.Errorf("first %t, error %v", first, err)
			}
			w.expect(t, "operations", &w.ops, "claim failed")
			if first, err := s.Claim(t.Context(), "a", time.Minute, w); first || err != nil {
				t.Errorf("replayed: first %t, error %v", first, err)
			}
			_ = s.Destruct()
			if first, err := s.Claim(t.Context(), "b", time.Minute, w); !first || !errors.Is(err, ErrUnavailable) {
				t.Errorf("after the end: first %t, error %v", first, err)
			}
		})
	}
}

func TestClaimsAreBoundedAndFailClosed(t *testing.T) {
	clock := newTestClock()
	s := newTestStore(t, Config{Now: clock.now, MaxClaims: 10})
	for i := range 10 {
		if first, err := s.Claim(t.Context(), fmt.Sprint(i), time.Minute, nil); !first || err != nil {
			t.Fatalf("first %t, error %v", first, err)
		}
	}
	if first, err := s.Claim(t.Context(), "one too many", time.Minute, nil); first || !errors.Is(err, ErrClaimsFull) {
		t.Errorf("first %t, error %v", first, err)
	}
	if first, err := s.Claim(t.Context(), "0", time.Minute, nil); first || err != nil {
		t.Errorf("a replay: first %t, error %v", first, err)
	}
	clock.advance(time.Minute)
	if first, err := s.Claim(t.Context(), "one more", time.Minute, nil); !first || err != nil {
		t.Errorf("after they have ended: first %t, error %v", first, err)
	}
}
