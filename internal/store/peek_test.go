package store

import (
	"testing"
	"time"
)

func TestPeekShowsAndChangesNothing(t *testing.T) {
	f, clock := newFakeRedis(t), newTestClock()
	s := sharing(t, f, clock.now)
	m, want := patient()
	expect := func(what string, memory, redis Result) {
		t.Helper()
		entries := s.Stats().Entries
		value, there := f.get("k")
		seen := s.Peek(t.Context(), "k", want)
		if seen.Memory.Result != memory || seen.Redis.Result != redis {
			t.Errorf("%s: memory %s, Redis %s; want %s and %s", what, seen.Memory.Result, seen.Redis.Result, memory, redis)
		}
		for _, level := range []Seen{seen.Memory, seen.Redis} {
			switch level.Result {
			case Hit, Expired, Stale, Blind, Fenced:
				if level.Entry == nil || level.Entry.KCID != m.KCID {
					t.Errorf("%s: %s without an entry", what, level.Result)
				}
			default:
				if level.Entry != nil {
					t.Errorf("%s: %s with an entry", what, level.Result)
				}
			}
		}
		if now, ok := f.get("k"); now != value || ok != there || s.Stats().Entries != entries {
			t.Errorf("%s: it has changed something", what)
		}
	}
	expect("nothing there", Miss, Miss)
	f.set("k", "rubbish")
	expect("rubbish", Miss, Invalid)
	f.set("k", aliceText)
	expect("Redis only", Miss, Hit)
	s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, time.Hour)
	expect("both", Hit, Hit)
	bob := want
	bob.KCID = "bob"
	if seen := s.Peek(t.Context(), "k", bob); seen.Memory != (Seen{nil, Mismatch}) || seen.Redis != (Seen{nil, Mismatch}) {
		t.Errorf("somebody else: %+v", seen)
	}
	clock.advance(time.Minute)
	expect("stale", Stale, Stale)
	want.Stale = 0
	expect("expired", Expired, Expired)
	want.Stale = time.Hour
	s.log.held[s.fences.place(scopeTenant, m.Tenant, "")].Add(1)
	s.fences.raise(s.fences.scope(Scope{Tenant: m.Tenant})...)
	expect("flushed", Fenced, Fenced)
	f.answer("-LOADING", "GETRANGE")
	expect("a server that cannot answer", Fenced, Failed)
	s.redis.breaker.open.Store(true)
	expect("an open breaker", Fenced, Skipped)
	s.redis.breaker.open.Store(false)

	alone := newTestStore(t, Config{})
	if seen := alone.Peek(t.Context(), "k", want); seen.Redis.Result != Skipped || seen.Memory.Result != Miss {
		t.Errorf("without Redis: %+v", seen)
	}
}
