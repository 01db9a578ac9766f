package store

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// sharing returns a store that shares f with s, as another node would.
func sharing(t *testing.T, f *fakeRedis, now func() time.Time) *Store {
	t.Helper()
	s := newTestStore(t, Config{URL: f.url(), Now: now, Timeout: time.Second, MaxBlind: time.Hour})
	eventually(t, "the log is followed", func() bool { return followed(s) })
	return s
}

func TestRedisSharesMembersBetweenNodes(t *testing.T) {
	f, clock, w := newFakeRedis(t), newTestClock(), &witness{}
	here, there := sharing(t, f, clock.now), sharing(t, f, clock.now)
	m, want := alice()

	l := here.Begin("k", want, w)
	if entry, level, _ := l.Get(t.Context()); entry != nil || level != None {
		t.Fatalf("an empty Redis has %v", entry)
	}
	l.Put(t.Context(), m, time.Minute, 0)
	w.expect(t, "here", &w.lookups, "redis miss")
	w.expect(t, "here", &w.ops, "get ok", "set ok")

	clock.advance(20 * time.Second)
	entry, level, _ := there.Begin("k", want, w).Get(t.Context())
	if level != Redis || !sameEntry(entry, aliceEntry()) {
		t.Fatalf("got %+v from %s", entry, level)
	}
	w.expect(t, "there", &w.lookups, "redis hit")
	w.expect(t, "there", &w.ops, "get ok") // one round trip for value and age
	w.expect(t, "there", &w.states)

	eventually(t, "the entry is promoted", func() bool {
		_, result := there.Memory("k", want)
		return result == Hit
	})
	clock.advance(40 * time.Second)
	if _, result := there.Memory("k", want); result == Hit {
		t.Error("the promoted entry outlives the original")
	}
}

func TestRedisValuesThatMayNotBeUsed(t *testing.T) {
	bob := strings.ReplaceAll(aliceText, "8d0c5a3e-0000-4000-8000-000000000001", "bob")
	tests := map[string]struct {
		value   string
		want    string
		deleted bool
	}{
		"CI-001 another user's value":        {bob, "mismatch", true},
		"CI-001 another user's record":       {strings.Replace(aliceText, `"member":{"kc_id":"8d0c5a3e-0000-4000-8000-000000000001"`, `"member":{"kc_id":"bob"`, 1), "mismatch", true},
		"CI-002 another tenant's value":      {strings.ReplaceAll(aliceText, "acme", "umbrella"), "mismatch", true},
		"another issuer's value":             {strings.ReplaceAll(aliceText, "realms/main", "realms/evil"), "mismatch", true},
		"CI-006 half a value":                {aliceText[:100], "invalid", true},
		"CI-007 an empty value":              {"", "miss", false},
		"CI-008 JSON of another type":        {"[]", "invalid", true},
		"CI-009 a huge value":                {strings.Repeat("x", 10<<20), "invalid", true},
		"CI-009 a value that only begins so": {aliceText + strings.Repeat(" ", MaxEntrySize), "invalid", true},
		"CI-011 a gob stream":                {"\x1d\xff\xd3\x02\x01\x01\x0erec", "invalid", true},
		"CI-012 a value of another version":  {strings.Replace(aliceText, `"v":3`, `"v":1`, 1), "invalid", true},
		"CI-014 a value that has long ended": {strings.NewReplacer("17672256", "17672250").Replace(aliceText), "expired", true},
		"a value of another generation":      {strings.Replace(aliceText, testGeneration, "another", 1), "fenced", false},
		"a value older than the generation":  {strings.Replace(aliceText, testPosition, "1767225589999-9", 1), "fenced", false},
		"a value of an event not read yet":   {strings.Replace(aliceText, testPosition, "1767225590000-1", 1), "fenced", false},
		"a value of an event that was lost":  {strings.Replace(aliceText, testMark.event.String(), "0123456789abcdef", 1), "fenced", false},
		"a value from the future":            {strings.NewReplacer("17672256", "17672266").Replace(aliceText), "expired", false},
		"CI-016 a promise of ten years":      {strings.NewReplacer("1767225600000", "1767225539999", "1767225660000", "2082585660000").Replace(aliceText), "expired", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f, clock, w := newFakeRedis(t), newTestClock(), &witness{}
			s := sharing(t, f, clock.now)
			_, want := alice()
			f.set("k", test.value)
			if entry, level, _ := s.Begin("k", want, w).Get(t.Context()); entry != nil || level != None {
				t.Fatalf("got %+v from %s", entry, level)
			}
			w.expect(t, "the result", &w.lookups, "redis "+test.want)
			if _, ok := f.get("k"); ok == test.deleted {
				t.Errorf("it is still there: %t", ok)
			}
			w.expect(t, "an unusable value is no fault of the server", &w.states)
			if _, result := s.Memory("k", want); result != Miss {
				t.Errorf("memory: %s", result)
			}
		})
	}
}

func TestHugeValuesAreNotRead(t *testing.T) {
	f := newFakeRedis(t)
	s := sharing(t, f, nil)
	f.set("k", strings.Repeat("x", 10<<20))
	text, err := s.redis.values.Get(t.Context(), "k").Result()
	if err != nil || len(text) != MaxEntrySize+1 {
		t.Errorf("%d bytes were read, error %v", len(text), err)
	}
}

func TestRedisLevelRefusesHarm(t *testing.T) {
	f := newFakeRedis(t)
	s := sharing(t, f, nil)
	f.set("somebody else's", "value")
	ctx := t.Context()
	_, want := alice()
	inLookup := withLookup(ctx, s.Begin("k", want, nil))
	for name, err := range map[string]error{
		"RD-015 clear":                 s.redis.Clear(ctx),
		"RD-015 gocache's clear":       s.redis.inner.Clear(ctx),
		"tags":                         s.redis.Invalidate(ctx),
		"a value outside a look-up":    s.redis.Set(ctx, "k", aliceEntry()),
		"a value under another key":    s.redis.Set(inLookup, "other", aliceEntry()),
		"a value of another type":      s.redis.Set(inLookup, "k", "text"),
		"a deletion outside a look-up": s.redis.Delete(ctx, "k"),
		"a deletion of another key":    s.redis.Delete(inLookup, "other"),
		"a read outside a look-up":     second(s.redis.Get(ctx, "k")),
		"a read of another key":        second(s.redis.Get(inLookup, "other")),
		"a key of another type":        second(s.redis.Get(inLookup, 7)),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, ok := f.get("somebody else's"); !ok {
		t.Error("somebody else's value is gone")
	}
	if n := f.count("FLUSHALL"); n > 0 {
		t.Error("FLUSHALL was sent")
	}
}

func second(_ any, err error) error { return err }

func TestOnlyAMissingKeyIsAMiss(t *testing.T) {
	for name, err := range map[string]error{
		"a closed client":     redis.ErrClosed,
		"an exhausted pool":   redis.ErrPoolTimeout,
		"the end of a stream": io.EOF,
		"a deadline":          context.DeadlineExceeded,
	} {
		if isMiss(err) || fault(err) == nil {
			t.Errorf("%s passes for a miss", name)
		}
	}
	if !isMiss(redis.Nil) || fault(redis.Nil) != nil {
		t.Error("redis.Nil is not a miss")
	}
}
