package store

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gocache "github.com/eko/gocache/lib/v4/store"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// testClock is a clock that stands still until it is told otherwise.
type testClock struct{ nanos atomic.Int64 }

func newTestClock() *testClock {
	c := &testClock{}
	c.nanos.Store(testTime.UnixNano())
	return c
}

func (c *testClock) now() time.Time          { return time.Unix(0, c.nanos.Load()) }
func (c *testClock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

// followed tells whether the store has carried out what stands in the log.
func followed(s *Store) bool {
	h := s.log.head.Load()
	return h != nil && h.last.at != position{}
}

// newTestStore returns a store that the test destructs at its end.
func newTestStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Destruct(); err != nil {
			t.Errorf("destruct: %v", err)
		}
	})
	if s.log != nil {
		eventually(t, "the log is followed, or cannot be", func() bool {
			s.log.sent.mu.Lock()
			defer s.log.sent.mu.Unlock()
			return followed(s) || s.log.sent.round > 3
		})
	}
	return s
}

func TestMemoryFindsWhatWasPut(t *testing.T) {
	clock := newTestClock()
	s := newTestStore(t, Config{Now: clock.now})
	m, want := alice()

	if _, result := s.Memory("k", want); result != Miss {
		t.Fatalf("an empty memory says %s", result)
	}
	put := s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
	got, result := s.Memory("k", want)
	if result != Hit || got != put || got.Member.ID != m.ID {
		t.Fatalf("got %v, %s", got, result)
	}
	if !got.LoadedAt().Equal(testTime) || !got.Expires().Equal(testTime.Add(time.Minute)) {
		t.Errorf("loaded at %v, expires %v", got.LoadedAt(), got.Expires())
	}

	// the chain asks memory again before it would ask Redis
	if got, level, _ := s.Begin("k", want, nil).Get(t.Context()); got != put || level != Memory {
		t.Errorf("the chain has %v from %s", got, level)
	}

	impatient := want
	impatient.TTL = 10 * time.Second
	clock.advance(10 * time.Second)
	if _, result := s.Memory("k", impatient); result != Expired {
		t.Errorf("a reader with a shorter ttl gets %s", result)
	}
	if _, level, _ := s.Begin("k", impatient, nil).Get(t.Context()); level != None {
		t.Errorf("a reader with a shorter ttl gets it from the chain's %s", level)
	}
	if _, result := s.Memory("k", want); result != Hit {
		t.Errorf("another reader's impatience made it %s", result)
	}
	clock.advance(50 * time.Second)
	if _, result := s.Memory("k", want); result == Hit {
		t.Error("it outlives its life")
	}
}

func TestMemoryNeverReturnsAnother(t *testing.T) {
	s := newTestStore(t, Config{})
	m, want := alice()
	s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)

	bob := want
	bob.KCID = "bob"
	if entry, result := s.Memory("k", bob); entry != nil || result != Mismatch {
		t.Fatalf("got %v, %s", entry, result)
	}
	if _, result := s.Memory("k", want); result != Miss {
		t.Errorf("a key with the wrong member is %s afterwards, want it dropped", result)
	}
}

func TestPutRefusesWhatIsNotTheMember(t *testing.T) {
	tests := map[string]func(*member.Member, *Want) (*member.Member, time.Duration){
		"another user": func(m *member.Member, _ *Want) (*member.Member, time.Duration) {
			m.KCID = "bob"
			return m, time.Minute
		},
		"another tenant": func(m *member.Member, _ *Want) (*member.Member, time.Duration) {
			m.Tenant = "umbrella"
			return m, time.Minute
		},
		"no member":   func(*member.Member, *Want) (*member.Member, time.Duration) { return nil, time.Minute },
		"no life":     func(m *member.Member, _ *Want) (*member.Member, time.Duration) { return m, 0 },
		"a past life": func(m *member.Member, _ *Want) (*member.Member, time.Duration) { return m, -time.Second },
		"nobody at all": func(m *member.Member, w *Want) (*member.Member, time.Duration) {
			m.KCID, w.KCID = "", ""
			return m, time.Minute
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			s := newTestStore(t, Config{})
			m, want := alice()
			m, life := change(m, &want)
			s.Begin("k", want, nil).Put(t.Context(), m, life, 0)
			if n := s.Stats().Entries; n != 0 {
				t.Errorf("%d entries are stored", n)
			}
		})
	}
}

func TestPutCannotOutliveItsLoad(t *testing.T) {
	clock := newTestClock()
	s := newTestStore(t, Config{Now: clock.now})
	m, want := alice()
	l := s.Begin("k", want, nil)
	clock.advance(time.Minute) // the resolver took all of its life
	l.Put(t.Context(), m, time.Minute, 0)
	if n := s.Stats().Entries; n != 0 {
		t.Errorf("%d entries are stored", n)
	}
}

func TestPromotionDoesNotReplaceANewerEntry(t *testing.T) {
	tests := map[string]struct {
		stored  time.Duration // loaded so long after testTime; negative: none
		fenced  bool
		replace bool
	}{
		"nothing in memory":                   {-1, false, true},
		"an older entry":                      {0, false, true},
		"a newer entry":                       {2 * time.Second, false, false},
		"a newer entry that was deleted":      {2 * time.Second, true, true},
		"an entry loaded at the same instant": {time.Second, false, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			clock := newTestClock()
			clock.advance(3 * time.Second)
			s := newTestStore(t, Config{Now: clock.now})
			m, want := alice()
			places := s.fences.entry("k", &want, m.ID)
			if test.stored >= 0 {
				stored := aliceEntry()
				stored.places = places
				stored.loaded = momentOf(testTime.Add(test.stored))
				s.memory.add("k", stored, false)
			}
			if test.fenced {
				s.fences.raiseKey("k")
			}
			promoted := aliceEntry()
			promoted.loaded = momentOf(testTime.Add(time.Second))
			promoted.position, promoted.places = s.fences.position(), places
			// as the chain does it: on a bare context, with a time to live
			if err := s.memory.Set(t.Context(), "k", promoted, gocache.WithExpiration(time.Hour)); err != nil {
				t.Fatal(err)
			}
			got, _ := s.Memory("k", want)
			if (got == promoted) != test.replace {
				t.Errorf("memory has %v", got)
			}
		})
	}
}

func TestPromotionNeverLengthensLife(t *testing.T) {
	t.Run("CI-014 CI-015", promotionNeverLengthensLife)
}

func promotionNeverLengthensLife(t *testing.T) {
	clock := newTestClock()
	s := newTestStore(t, Config{Now: clock.now})
	_, want := alice()
	want.TTL = time.Hour
	ttls := []time.Duration{time.Hour, 0, -1, -2} // what Redis says must not matter
	for i, ttl := range ttls {
		key := fmt.Sprint(i)
		if err := s.memory.Set(t.Context(), key, aliceEntry(), gocache.WithExpiration(ttl)); err != nil {
			t.Fatal(err)
		}
		if _, result := s.Memory(key, want); result != Hit {
			t.Errorf("ttl %v: %s", ttl, result)
		}
	}
	clock.advance(time.Minute)
	for i := range ttls {
		if _, ok := s.memory.entries.GetIfPresent(fmt.Sprint(i)); ok {
			t.Errorf("otter still has the entry with ttl %v", ttls[i])
		}
	}
	if s.memory.add("k", aliceEntry(), true) {
		t.Error("an entry that has ended is promoted")
	}
}

func TestMemoryFollowsTheRealClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestStore(t, Config{})
		m, want := alice()
		s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
		pass(time.Minute - 1)
		if _, result := s.Memory("k", want); result != Hit {
			t.Errorf("just before its end it is %s", result)
		}
		pass(3 * time.Second)
		if n := s.Stats().Entries; n != 0 {
			t.Errorf("%d entries wait to be cleared away", n)
		}
	})
}

func TestMemoryLevelRefusesForeignUse(t *testing.T) {
	s := newTestStore(t, Config{})
	ctx := t.Context()
	var none *Entry
	for name, err := range map[string]error{
		"a value of another type": s.memory.Set(ctx, "k", "text"),
		"no value":                s.memory.Set(ctx, "k", nil),
		"a nil entry":             s.memory.Set(ctx, "k", none),
		"a key of another type":   s.memory.Set(ctx, 1, aliceEntry()),
		"tags":                    s.memory.Invalidate(ctx),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := s.memory.Get(ctx, "k"); err == nil {
		t.Error("a look-up without anybody to look for: no error")
	}
}

// fill puts n members of about the given size, so that they share no text.
func fill(t testing.TB, s *Store, n, attributes int) {
	keys := newTestKeys(t)
	for i := range n {
		kcID := fmt.Sprintf("8d0c5a3e-0000-4000-8000-%012d", i)
		m := &member.Member{KCID: kcID, Tenant: fmt.Sprintf("acme-%d", i), Active: true, ID: fmt.Sprint(i)}
		if attributes > 0 {
			m.Attributes = map[string]member.Value{}
		}
		for a := range attributes {
			m.Attributes[fmt.Sprintf("attribute-%d", a)] = member.List(fmt.Sprintf("role-%d", i), fmt.Sprintf("role-%d", i+1))
		}
		want := Want{Tenant: m.Tenant, Issuer: testIssuer, KCID: kcID, TTL: time.Hour}
		s.Begin(keys.Member(m.Tenant, testIssuer, kcID), want, nil).Put(t.Context(), m, time.Hour, 0)
	}
}

func TestWeightIsHonest(t *testing.T) {
	for name, attributes := range map[string]int{"bare members": 0, "a few attributes": 4, "many attributes": 20} {
		t.Run(name, func(t *testing.T) {
			s := newTestStore(t, Config{MemoryBytes: 1 << 30})
			before, _ := heapHeld()
			fill(t, s, 10000, attributes)
			s.memory.entries.CleanUp()
			after, _ := heapHeld()
			used := after - before
			stats := s.Stats()
			t.Logf("per entry: weight %d, used %.0f", stats.Bytes/uint64(stats.Entries), used/float64(stats.Entries))
			if ratio := float64(stats.Bytes) / used; ratio < 0.7 || ratio > 1.4 {
				t.Errorf("%d entries weigh %d bytes and use %.0f: ratio %.2f", stats.Entries, stats.Bytes, used, ratio)
			}
		})
	}
}

func TestMemoryIsBounded(t *testing.T) {
	s := newTestStore(t, Config{MemoryBytes: 1 << 20})
	fill(t, s, 5000, 2)
	s.memory.entries.CleanUp()
	if stats := s.Stats(); stats.Bytes > stats.MaxBytes || stats.MaxBytes != 1<<20 || stats.Entries < 100 {
		t.Errorf("%+v", stats)
	}
}

func TestMemoryHitCostsNoAllocation(t *testing.T) {
	s := newTestStore(t, Config{})
	m, want := alice()
	s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
	for range 2 {
		n := testing.AllocsPerRun(1000, func() {
			if _, result := s.Memory("k", want); result != Hit {
				t.Error(result)
			}
		})
		if n > 0 {
			t.Errorf("a hit costs %v allocations", n)
		}
		if _, err := s.Flush(t.Context(), Scope{Tenant: "another"}, nil); err != nil { // and once more, with fences to look at
			t.Fatal(err)
		}
	}
}

func BenchmarkMemoryHit(b *testing.B) {
	b.Run("no flush since", func(b *testing.B) { benchmarkMemoryHit(b, false) })
	b.Run("a flush since", func(b *testing.B) { benchmarkMemoryHit(b, true) })
}

func benchmarkMemoryHit(b *testing.B, flush bool) {
	s := newTestStore(b, Config{})
	m, want := alice()
	key := newTestKeys(b).Member(want.Tenant, want.Issuer, want.KCID)
	s.Begin(key, want, nil).Put(b.Context(), m, time.Hour, 0)
	if flush {
		if _, err := s.Flush(b.Context(), Scope{Tenant: "another"}, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, result := s.Memory(key, want); result != Hit {
				b.Error(result)
			}
		}
	})
}
