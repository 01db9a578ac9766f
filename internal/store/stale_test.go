package store

import (
	"math"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func TestEntryIsStaleByWriterAndReader(t *testing.T) {
	tests := map[string]struct {
		age, life, keep time.Duration // of the entry
		ttl, stale      time.Duration // of the reader
		blind           bool
		want            Result
	}{
		"fresh":                                {0, time.Minute, time.Hour, time.Minute, time.Hour, false, Hit},
		"just expired":                         {time.Minute, time.Minute, time.Hour, time.Minute, time.Hour, false, Stale},
		"expired for this reader only":         {time.Minute, time.Hour, time.Hour, time.Minute, time.Hour, false, Stale},
		"just before the writer's end":         {time.Hour - 1, time.Minute, time.Hour, time.Minute, time.Hour, false, Stale},
		"at the writer's end":                  {time.Hour, time.Minute, time.Hour, time.Minute, 9 * time.Hour, false, Expired},
		"just before the reader's end":         {2*time.Minute - 1, time.Minute, time.Hour, time.Minute, time.Minute, false, Stale},
		"at the reader's end":                  {2 * time.Minute, time.Minute, time.Hour, time.Minute, time.Minute, false, Expired},
		"a reader who wants nothing stale":     {time.Minute, time.Minute, time.Hour, time.Minute, 0, false, Expired},
		"a reader with a negative patience":    {time.Minute, time.Minute, time.Hour, time.Minute, -1, false, Expired},
		"a reader without a ttl":               {0, time.Minute, time.Hour, 0, time.Hour, false, Expired},
		"a reader with a negative ttl":         {0, time.Minute, time.Hour, -time.Minute, time.Hour, false, Expired},
		"a reader with endless patience":       {time.Minute, time.Minute, time.Hour, time.Minute, math.MaxInt64, false, Stale},
		"a writer who keeps nothing":           {time.Minute, time.Minute, time.Minute, time.Hour, time.Hour, false, Expired},
		"from the future":                      {-ClockTolerance - 1, time.Minute, time.Hour, time.Minute, time.Hour, false, Expired},
		"from the far future":                  {-1000000 * time.Hour, time.Minute, time.Hour, time.Minute, time.Hour, false, Expired},
		"blind and fresh, for nobody":          {0, time.Minute, time.Hour, time.Minute, 0, true, Blind},
		"blind and fresh, for who takes stale": {0, time.Minute, time.Hour, time.Minute, time.Hour, true, Stale},
		"blind and expired":                    {time.Minute, time.Minute, time.Hour, time.Minute, time.Hour, true, Stale},
		"blind and too old":                    {time.Hour, time.Minute, time.Hour, time.Minute, time.Hour, true, Expired},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			entry, now := aliceEntry(), testTime.Add(test.age)
			entry.life, entry.keep = test.life, test.keep
			_, want := alice()
			want.TTL, want.Stale = test.ttl, test.stale
			if got := entry.judge(&want, now, test.blind); got != test.want {
				t.Errorf("it is %s, want %s", got, test.want)
			}
			want.KCID = "bob"
			if got := entry.judge(&want, now, test.blind); got != Mismatch {
				t.Errorf("for another user it is %s", got)
			}
		})
	}
}

// patient returns alice, and the Want of a reader who takes stale entries.
func patient() (*member.Member, Want) {
	m, want := alice()
	want.Stale = time.Hour
	return m, want
}

func TestStaleEntriesAreKeptAndToldApart(t *testing.T) {
	f, clock, w := newFakeRedis(t), newTestClock(), &witness{}
	s := sharing(t, f, clock.now)
	m, want := patient()
	put := s.Begin("k", want, w).Put(t.Context(), m, time.Minute, time.Hour)
	if !put.Expires().Equal(testTime.Add(time.Minute)) || put.keep != 61*time.Minute {
		t.Errorf("it expires at %v and is kept for %v", put.Expires(), put.keep)
	}
	clock.advance(time.Minute)
	if entry, result := s.Memory("k", want); entry != put || result != Stale {
		t.Errorf("memory: %v, %s", entry, result)
	}
	strict := want
	strict.Stale = 0
	if entry, result := s.Memory("k", strict); entry != nil || result != Expired {
		t.Errorf("memory, for a strict reader: %v, %s", entry, result)
	}
	if entry, level, result := s.Begin("k", strict, nil).Get(t.Context()); entry != nil || level != None || result != Miss {
		t.Errorf("a strict reader gets %v from %s, %s", entry, level, result)
	}
	if entry, level, result := s.Begin("k", want, w).Get(t.Context()); entry != put || level != Memory || result != Stale {
		t.Errorf("got %v from %s, %s", entry, level, result)
	}
	w.expect(t, "look-ups", &w.lookups, "redis stale") // it was looked for a fresh one

	// A node that has just started has it from Redis, and then in memory.
	other := sharing(t, f, clock.now)
	if entry, level, result := other.Begin("k", want, nil).Get(t.Context()); entry == nil || level != Redis || result != Stale {
		t.Errorf("another node got %v from %s, %s", entry, level, result)
	}
	if _, result := other.Memory("k", want); result != Stale {
		t.Errorf("another node's memory: %s", result)
	}
	clock.advance(time.Hour)
	for name, s := range map[string]*Store{"here": s, "there": other} {
		if entry, level, _ := s.Begin("k", want, nil).Get(t.Context()); entry != nil || level != None {
			t.Errorf("%s, at its end: %v from %s", name, entry, level)
		}
	}
	if _, ok := f.get("k"); ok {
		t.Error("Redis keeps it for ever")
	}
}

func TestFreshEntryOfRedisIsBetterThanStaleOneOfMemory(t *testing.T) {
	f, clock := newFakeRedis(t), newTestClock()
	here, there := sharing(t, f, clock.now), sharing(t, f, clock.now)
	m, want := patient()
	here.Begin("k", want, nil).Put(t.Context(), m, time.Minute, time.Hour)
	clock.advance(time.Minute)
	renewed := *m
	renewed.ID = "renewed"
	there.Begin("k", want, nil).Put(t.Context(), &renewed, time.Minute, time.Hour)
	entry, level, result := here.Begin("k", want, nil).Get(t.Context())
	if level != Redis || result != Hit || entry.Member.ID != "renewed" {
		t.Fatalf("got %v from %s, %s", entry, level, result)
	}
	eventually(t, "it replaces the stale one", func() bool { _, result := here.Memory("k", want); return result == Hit })

	// Of two stale ones the newer is taken.
	clock.advance(time.Minute)
	again := *m
	again.ID = "again"
	there.Begin("k", want, nil).Put(t.Context(), &again, time.Minute, time.Hour)
	clock.advance(time.Minute)
	entry, level, result = here.Begin("k", want, nil).Get(t.Context())
	if level != Redis || result != Stale || entry.Member.ID != "again" {
		t.Errorf("got %v from %s, %s", entry, level, result)
	}
}

func TestFlushWinsOverStaleEntries(t *testing.T) {
	for name, scope := range aliceScopes() {
		t.Run(name, func(t *testing.T) {
			f, clock := newFakeRedis(t), newTestClock()
			here, there := sharing(t, f, clock.now), sharing(t, f, clock.now)
			m, want := patient()
			here.Begin("k", want, nil).Put(t.Context(), m, time.Minute, time.Hour)
			before, _ := f.get("k")
			clock.advance(time.Minute)
			_, _, result := there.Begin("k", want, nil).Get(t.Context())
			if result != Stale {
				t.Fatalf("the case is not what it should be: %s", result)
			}
			reading := there.Begin("k", want, nil)
			if _, err := here.Flush(t.Context(), scope, nil); err != nil {
				t.Fatal(err)
			}
			if _, result := here.Memory("k", want); result == Stale {
				t.Error("it is still in the memory of the node that flushed")
			}
			caughtUp(t, f, here, there)
			f.set("k", before)
			for name, l := range map[string]*Lookup{
				"a look-up here": here.Begin("k", want, nil), "a look-up there": there.Begin("k", want, nil), "one that began before": reading,
			} {
				if entry, level, _ := l.Get(t.Context()); entry != nil {
					t.Errorf("%s returns %v from %s", name, entry, level)
				}
			}
		})
	}
}

func TestBlindNodeHasStaleEntries(t *testing.T) {
	f, clock := newFakeRedis(t), newTestClock()
	s := newTestStore(t, Config{URL: f.url(), Now: clock.now, Timeout: time.Second})
	caughtUp(t, f, s)
	m, want := patient()
	strict := want
	strict.Stale = 0
	s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, time.Hour)
	f.answer(drop, "XRANGE", "XREAD", "GETRANGE")
	eventually(t, "the log cannot be read", func() bool {
		s.log.sent.mu.Lock()
		defer s.log.sent.mu.Unlock()
		return s.log.sent.broken
	})
	clock.advance(DefaultMaxBlind + time.Second)
	if entry, result := s.Memory("k", want); entry == nil || result != Stale {
		t.Errorf("memory: %v, %s", entry, result)
	}
	if entry, result := s.Memory("k", strict); entry != nil || result != Blind {
		t.Errorf("memory, for a strict reader: %v, %s", entry, result)
	}
	if entry, level, result := s.Begin("k", want, nil).Get(t.Context()); entry == nil || level != Memory || result != Stale {
		t.Errorf("got %v from %s, %s", entry, level, result)
	}
}

func TestRenewalReplacesWhatIsStored(t *testing.T) {
	f, clock, w := newFakeRedis(t), newTestClock(), &witness{}
	s := sharing(t, f, clock.now)
	m, want := alice()
	s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
	clock.advance(50 * time.Second)
	renewed := *m
	renewed.ID = "renewed"
	s.Begin("k", want, w).Put(t.Context(), &renewed, time.Minute, 0) // nobody has called Get
	w.expect(t, "operations", &w.ops, "set ok")
	w.expect(t, "look-ups", &w.lookups)
	clock.advance(50 * time.Second)
	if entry, result := s.Memory("k", want); result != Hit || entry.Member.ID != "renewed" {
		t.Errorf("memory: %v, %s", entry, result)
	}
	other := sharing(t, f, clock.now)
	if entry, level, _ := other.Begin("k", want, nil).Get(t.Context()); level != Redis || entry.Member.ID != "renewed" {
		t.Errorf("Redis: %v", entry)
	}
	if n := s.Stats().Entries; n != 1 {
		t.Errorf("%d entries", n)
	}
}
