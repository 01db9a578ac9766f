package store

import (
	"testing"
	"time"
)

func TestNodeThatCannotReadTheLogIsBlind(t *testing.T) {
	f, clock, w := newFakeRedis(t), newTestClock(), &witness{}
	s := newTestStore(t, Config{URL: f.url(), Now: clock.now, Timeout: time.Second})
	m, want := alice()
	caughtUp(t, f, s)
	s.Begin("before", want, w).Put(t.Context(), m, time.Hour, 0)
	f.answer("-NOPERM this user has no permissions to run the 'xrange' command", "XRANGE")
	eventually(t, "the log cannot be read", func() bool {
		s.log.sent.mu.Lock()
		defer s.log.sent.mu.Unlock()
		return s.log.sent.broken
	})
	memory := func(what, key string, want Want, result Result) {
		t.Helper()
		if _, got := s.Memory(key, want); got != result {
			t.Errorf("%s: %s, want %s", what, got, result)
		}
	}
	clock.advance(DefaultMaxBlind)
	memory("at the end of max_blind", "before", want, Hit)
	clock.advance(1)
	memory("after it", "before", want, Blind)
	if entry, level, _ := s.Begin("before", want, w).Get(t.Context()); entry != nil || level != None {
		t.Errorf("Redis has %v", entry)
	}
	w.expect(t, "look-ups", &w.lookups, "redis blind")
	w.expect(t, "operations", &w.ops, "set ok")

	s.Begin("since", want, w).Put(t.Context(), m, time.Hour, 0)
	memory("loaded since", "since", want, Hit)
	clock.advance(DefaultMaxBlind)
	memory("loaded since, at its end", "since", want, Hit)
	clock.advance(1)
	memory("loaded since, after its end", "since", want, Blind)
	eventually(t, "it is told", func() bool {
		s.Begin("k", want, w).Get(t.Context())
		return len(w.logs) > 0 && w.logs[len(w.logs)-1] == "blind"
	})

	f.answer("", "XRANGE")
	eventually(t, "it sees again", func() bool { _, result := s.Memory("before", want); return result == Hit })
	memory("loaded since", "since", want, Hit)
}

func TestEntriesOfRedisAreKnownOnlyAsFarAsTheLog(t *testing.T) {
	f, clock := newFakeRedis(t), newTestClock()
	s := newTestStore(t, Config{URL: f.url(), Now: clock.now, Timeout: time.Second})
	_, want := alice()
	caughtUp(t, f, s)
	f.answer("-NOPERM this user has no permissions to run the 'xrange' command", "XRANGE")
	eventually(t, "the log cannot be read", func() bool {
		s.log.sent.mu.Lock()
		defer s.log.sent.mu.Unlock()
		return s.log.sent.broken
	})
	clock.advance(DefaultMaxBlind)
	f.set("k", aliceText)
	if entry, level, _ := s.Begin("k", want, nil).Get(t.Context()); entry == nil || level != Redis {
		t.Fatalf("%v from %s", entry, level)
	}
	eventually(t, "it is promoted", func() bool { _, result := s.Memory("k", want); return result == Hit })
	clock.advance(1) // it was read just now, but what it is worth was known five seconds ago
	if _, result := s.Memory("k", want); result != Blind {
		t.Errorf("memory: %s", result)
	}
}

func TestNodeThatHasNotReadTheLogUsesNoRedis(t *testing.T) {
	f, w := newFakeRedis(t), &witness{}
	f.answer(hang, "XRANGE")
	s, err := New(Config{URL: f.url(), Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Destruct() })
	f.set("k", aliceText)
	eventually(t, "it tries to", func() bool { return f.count("XRANGE") > 0 })
	m, want := alice()
	want.TTL = 100000 * time.Hour
	l := s.Begin("k", want, w)
	if entry, level, _ := l.Get(t.Context()); entry != nil {
		t.Errorf("%v from %s", entry, level)
	}
	l.Put(t.Context(), m, time.Minute, 0)
	w.expect(t, "look-ups", &w.lookups, "redis blind")
	w.expect(t, "operations", &w.ops)
	if _, result := s.Memory("k", want); result != Hit {
		t.Errorf("what it has loaded itself is a %s", result)
	}
	f.answer("", "XRANGE")
	eventually(t, "what it has loaded before it knew of flushes is gone", func() bool {
		_, result := s.Memory("k", want)
		return result != Hit
	})
}
