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
		if first, err := s.Claim(t.Context(), "owner", id, time.Minute, nil); first != want || err != nil {
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
		if first, err := here.Claim(t.Context(), "owner", call.id, call.life, nil); first || err == nil {
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
			if first, err := s.Claim(t.Context(), "owner", "a", time.Minute, w); !first || !errors.Is(err, ErrUnavailable) {
				t.Errorf("first %t, error %v", first, err)
			}
			w.expect(t, "operations", &w.ops, "claim failed")
			if first, err := s.Claim(t.Context(), "owner", "a", time.Minute, w); first || err != nil {
				t.Errorf("replayed: first %t, error %v", first, err)
			}
			_ = s.Destruct()
			if first, err := s.Claim(t.Context(), "owner", "b", time.Minute, w); !first || !errors.Is(err, ErrUnavailable) {
				t.Errorf("after the end: first %t, error %v", first, err)
			}
		})
	}
}

func TestClaimsAreBoundedAndFailClosed(t *testing.T) {
	clock := newTestClock()
	s := newTestStore(t, Config{Now: clock.now, MaxClaims: 10})
	for i := range 10 {
		if first, err := s.Claim(t.Context(), "owner", fmt.Sprint(i), time.Minute, nil); !first || err != nil {
			t.Fatalf("first %t, error %v", first, err)
		}
	}
	if first, err := s.Claim(t.Context(), "owner", "one too many", time.Minute, nil); first || !errors.Is(err, ErrClaimsFull) {
		t.Errorf("first %t, error %v", first, err)
	}
	if first, err := s.Claim(t.Context(), "owner", "0", time.Minute, nil); first || err != nil {
		t.Errorf("a replay: first %t, error %v", first, err)
	}
	clock.advance(time.Minute)
	if first, err := s.Claim(t.Context(), "owner", "one more", time.Minute, nil); !first || err != nil {
		t.Errorf("after they have ended: first %t, error %v", first, err)
	}
}

func TestOneOwnerDoesNotUseUpTheClaimsOfOthers(t *testing.T) {
	const limit = 20_000
	clock := newTestClock()
	s := newTestStore(t, Config{Now: clock.now, MaxClaims: limit})
	for i := range limit {
		first, err := s.Claim(t.Context(), "mallory", fmt.Sprint(i), 10*time.Minute, nil)
		if first != (i < limit/claimShares) || first != (err == nil) || !first && !errors.Is(err, ErrClaimsFull) {
			t.Fatalf("claim %d: first %t, error %v", i, first, err)
		}
	}
	if first, err := s.Claim(t.Context(), "alice", "a", time.Minute, nil); !first || err != nil {
		t.Errorf("alice's first claim: first %t, error %v", first, err)
	}
	if first, err := s.Claim(t.Context(), "alice", "0", time.Minute, nil); first || err != nil {
		t.Errorf("alice claims what mallory has: first %t, error %v", first, err)
	}
	clock.advance(10 * time.Minute)
	if first, err := s.Claim(t.Context(), "mallory", "new", time.Minute, nil); !first || err != nil {
		t.Errorf("mallory, after they have ended: first %t, error %v", first, err)
	}
	if held, owners := len(s.claims.held), len(s.claims.owners); held != 1 || owners != 1 {
		t.Errorf("%d claims of %d owners are kept", held, owners)
	}
}

func TestClaimsNeedAnOwner(t *testing.T) {
	s := newTestStore(t, Config{})
	if first, err := s.Claim(t.Context(), "", "a", time.Minute, nil); first || !errors.Is(err, errNoClaim) {
		t.Errorf("first %t, error %v", first, err)
	}
}
