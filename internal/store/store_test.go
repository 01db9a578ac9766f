package store

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func TestDeletionWins(t *testing.T) {
	// Each case lets alice's old record take another way into a store, and a
	// deletion happen on that way. Nothing of her may be left.
	tests := map[string]func(t *testing.T, s *Store, f *fakeRedis, deletion func()){
		"over what is in both levels": func(t *testing.T, s *Store, _ *fakeRedis, deletion func()) {
			m, want := alice()
			s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
			deletion()
		},
		"over a load that began before": func(t *testing.T, s *Store, f *fakeRedis, deletion func()) {
			m, want := alice()
			l := s.Begin("k", want, nil)
			deletion()
			if !l.Overtaken() {
				t.Error("the look-up does not know that it was overtaken")
			}
			l.Put(t.Context(), m, time.Minute, 0)
			if n := f.count("SET") + s.Stats().Entries; n > 0 {
				t.Error("it was stored, if only for a moment")
			}
		},
		"over a read that began before": func(t *testing.T, s *Store, f *fakeRedis, deletion func()) {
			_, want := alice()
			var once sync.Once
			f.on(func(args []string) {
				if args[0] == "GETRANGE" {
					once.Do(func() {
						deletion()
						f.set("k", aliceText) // as if the server had read it before
					})
				}
			})
			w := &witness{}
			if entry, level, _ := s.Begin("k", want, w).Get(t.Context()); entry != nil || level != None {
				t.Errorf("the read returns %v from %s", entry, level)
			}
			w.expect(t, "the read", &w.lookups, "redis fenced")
			f.mu.Lock()
			delete(f.values, "k")
			f.mu.Unlock()
		},
		"over a read while it is under way": func(t *testing.T, s *Store, f *fakeRedis, deletion func()) {
			_, want := alice()
			f.set("k", aliceText)
			f.on(func(args []string) {
				if args[0] == "UNLINK" {
					if _, level, _ := s.Begin("k", want, nil).Get(t.Context()); level != Redis {
						t.Errorf("the case is not what it should be: %s", level)
					}
				}
			})
			deletion()
		},
		"over a write while it is under way": func(t *testing.T, s *Store, f *fakeRedis, deletion func()) {
			m, want := alice()
			var once sync.Once
			f.on(func(args []string) {
				if args[0] == "SET" {
					once.Do(deletion)
				}
			})
			s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
		},
		"over a promotion that waits": func(t *testing.T, s *Store, f *fakeRedis, deletion func()) {
			_, want := alice()
			f.set("k", aliceText)
			entry, level, _ := s.Begin("k", want, nil).Get(t.Context())
			if level != Redis {
				t.Fatalf("the case is not what it should be: %s", level)
			}
			deletion()
			_ = s.memory.Set(t.Context(), "k", entry) // as the chain would promote
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f, clock := newFakeRedis(t), newTestClock()
			s := newTestStore(t, Config{URL: f.url(), Now: clock.now, Timeout: 5 * time.Second})
			test(t, s, f, func() {
				if err := s.Delete(t.Context(), "k", nil); err != nil {
					t.Errorf("deletion: %v", err)
				}
			})
			f.on(nil)
			_, want := alice()
			check := func() {
				if entry, _ := s.Memory("k", want); entry != nil {
					t.Error("memory still has her")
				}
			}
			check()
			if _, ok := f.get("k"); ok {
				t.Error("Redis still has her")
			}
			if entry, level, _ := s.Begin("k", want, nil).Get(t.Context()); entry != nil {
				t.Errorf("%s still has her", level)
			}
			_ = s.Destruct()
			check()
			if n := s.Stats().Entries; n > 1 {
				t.Errorf("%d entries", n)
			}
		})
	}
}

func TestAMemberCanComeBackAfterDeletion(t *testing.T) {
	f := newFakeRedis(t)
	s := newTestStore(t, Config{URL: f.url(), Timeout: time.Second})
	m, want := alice()
	for range 3 {
		if err := s.Delete(t.Context(), "k", nil); err != nil {
			t.Fatal(err)
		}
		s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
		if _, result := s.Memory("k", want); result != Hit {
			t.Fatalf("memory: %s", result)
		}
		s.memory.remove("k")
		if _, level, _ := s.Begin("k", want, nil).Get(t.Context()); level != Redis {
			t.Fatalf("level: %s", level)
		}
	}
}

func TestDeletionThatFailsSaysSo(t *testing.T) {
	f, w := newFakeRedis(t), &witness{}
	s := newTestStore(t, Config{URL: f.url(), Timeout: 200 * time.Millisecond})
	m, want := alice()
	s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
	f.answer("-READONLY You can't write against a read only replica.", "UNLINK")
	if err := s.Delete(t.Context(), "k", w); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("error is %v", err)
	}
	if _, result := s.Memory("k", want); result == Hit {
		t.Error("memory still has it")
	}
	w.expect(t, "operations", &w.ops, "delete failed")

	f.answer(drop, "UNLINK", "GETRANGE")
	for range tripAfter {
		if err := s.Delete(t.Context(), "k", w); !errors.Is(err, ErrUnavailable) {
			t.Errorf("error is %v", err)
		}
	}
	if err := s.Delete(t.Context(), "k", w); !errors.Is(err, ErrUnavailable) {
		t.Errorf("with an open breaker the error is %v", err)
	}
}

func TestMemoryOnlyStore(t *testing.T) {
	for _, url := range []string{"", "memory://"} {
		s, w := newTestStore(t, Config{URL: url}), &witness{}
		m, want := alice()
		l := s.Begin("k", want, w)
		if entry, level, _ := l.Get(t.Context()); entry != nil || level != None {
			t.Errorf("got %v from %s", entry, level)
		}
		l.Put(t.Context(), m, time.Minute, 0)
		if _, result := s.Memory("k", want); result != Hit {
			t.Errorf("memory: %s", result)
		}
		late := s.Begin("k", want, w)
		if err := s.Delete(t.Context(), "k", w); err != nil {
			t.Error(err)
		}
		if _, result := s.Memory("k", want); result == Hit {
			t.Error("memory still has it")
		}
		late.Put(t.Context(), m, time.Minute, 0)
		if _, result := s.Memory("k", want); result == Hit {
			t.Error("a load that began before the deletion brings it back")
		}
		w.expect(t, "look-ups", &w.lookups)
		w.expect(t, "operations", &w.ops)
		if stats := s.Stats(); stats.Shared || stats.MaxBytes != DefaultMemoryBytes {
			t.Errorf("%+v", stats)
		}
	}
}

func TestDestructedStoreIsHarmless(t *testing.T) {
	f, w := newFakeRedis(t), &witness{}
	s := newTestStore(t, Config{URL: f.url(), Timeout: time.Second})
	m, want := alice()
	s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
	s.Begin("other", want, nil).Get(t.Context())
	for range 2 {
		if err := s.Destruct(); err != nil {
			t.Fatal(err)
		}
	}
	if _, result := s.Memory("k", want); result != Hit {
		t.Errorf("memory: %s", result)
	}
	for i := range 20 {
		l := s.Begin(fmt.Sprint(i), want, w)
		if entry, level, _ := l.Get(t.Context()); entry != nil || level != None {
			t.Errorf("got %v from %s", entry, level)
		}
		l.Put(t.Context(), m, time.Minute, 0)
		if _, result := s.Memory(fmt.Sprint(i), want); result != Hit {
			t.Errorf("memory: %s", result)
		}
	}
	if err := s.Delete(t.Context(), "k", w); !errors.Is(err, ErrUnavailable) {
		t.Errorf("deletion: %v", err)
	}
	w.expect(t, "operations", &w.ops)
	w.expect(t, "states", &w.states)
	s.Stats()
}

func TestClosedClientIsAnUnavailableLevel(t *testing.T) {
	f, w := newFakeRedis(t), &witness{}
	s := newTestStore(t, Config{URL: f.url(), Timeout: time.Second})
	_, want := alice()
	if err := s.redis.client.Close(); err != nil { // as seen by a look-up under way at the end
		t.Fatal(err)
	}
	s.Begin("k", want, w).Get(t.Context())
	w.expect(t, "look-ups", &w.lookups, "redis error")
	s.destruct = func() error { return errors.Join(s.chain.Close(), nil) }
	t.Cleanup(func() { s.redis.breaker.stop(); s.memory.close() })
}

func TestDestructDuringUse(t *testing.T) {
	f := newFakeRedis(t)
	s := newTestStore(t, Config{URL: f.url(), Timeout: time.Second})
	m, want := alice()
	f.set("shared", aliceText)
	stop, started := make(chan struct{}), make(chan struct{}, 8)
	var using sync.WaitGroup
	for range 8 {
		using.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				l := s.Begin("shared", want, &witness{})
				l.Get(t.Context())
				s.Begin(fmt.Sprint(i%100), want, nil).Put(t.Context(), m, time.Minute, 0)
				_ = s.Delete(t.Context(), "shared", nil)
				s.Memory("shared", want)
				s.Stats()
				if i == 20 {
					started <- struct{}{}
				}
			}
		})
	}
	<-started
	if err := s.Destruct(); err != nil {
		t.Error(err)
	}
	close(stop)
	using.Wait()
}

func TestStoresLeaveNothingBehind(t *testing.T) {
	f := newFakeRedis(t)
	before := runtime.NumGoroutine()
	for i := range 50 {
		url := f.url()
		if i%3 == 1 {
			url = "memory://"
		}
		s, err := New(Config{URL: url, Timeout: 500 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		m, want := alice()
		if i%3 == 2 {
			f.answer("-LOADING", "GETRANGE") // and leave with an open breaker
		}
		for range tripAfter {
			l := s.Begin("k", want, nil)
			l.Get(t.Context())
			l.Put(t.Context(), m, time.Minute, 0)
			s.memory.remove("k")
		}
		f.answer("", "GETRANGE")
		if err := s.Destruct(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all goroutines are gone", func() bool { return runtime.NumGoroutine() <= before })
}

func TestNewDoesNotWaitForRedis(t *testing.T) {
	f := newFakeRedis(t)
	f.answer(hang, "HELLO", "XRANGE")
	start := time.Now()
	s, err := New(Config{URL: f.url()})
	if err != nil {
		t.Fatal(err)
	}
	s.Stats()
	if err := s.Destruct(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("that took %v", took)
	}
}

func TestPoisonedRedisYieldsNobodyElse(t *testing.T) { t.Run("CI-027", poisonedRedisYieldsNobodyElse) }

func poisonedRedisYieldsNobodyElse(t *testing.T) {
	f, clock, w := newFakeRedis(t), newTestClock(), &witness{}
	s := newTestStore(t, Config{URL: f.url(), Now: clock.now, Timeout: 5 * time.Second})
	keys := newTestKeys(t)
	people := make([]Want, 50)
	for i := range people {
		people[i] = Want{Tenant: fmt.Sprint("t", i%3), Issuer: testIssuer, KCID: fmt.Sprint("u", i), TTL: time.Minute}
	}
	of := func(w Want) (string, *member.Member) {
		return keys.Member(w.Tenant, w.Issuer, w.KCID), &member.Member{Tenant: w.Tenant, KCID: w.KCID, Active: true, ID: w.KCID}
	}
	for shift := 1; shift < len(people); shift += 7 {
		for i, person := range people {
			key, _ := of(person)
			_, other := of(people[(i+shift)%len(people)])
			value := mustEncode(t, &Entry{
				Member: *other, Tenant: other.Tenant, Issuer: testIssuer, KCID: other.KCID,
				loaded: momentOf(testTime), life: time.Minute, keep: time.Minute,
			})
			f.set(key, string(value))
		}
		for _, person := range people {
			key, own := of(person)
			l := s.Begin(key, person, w)
			if entry, level, _ := l.Get(t.Context()); entry != nil {
				t.Fatalf("%v gets %v from %s", person, entry.Member, level)
			}
			l.Put(t.Context(), own, time.Minute, 0)
			if entry, _ := s.Memory(key, person); entry == nil || entry.Member.KCID != own.KCID || entry.Member.Tenant != own.Tenant {
				t.Fatalf("%v is not who they are", person)
			}
			s.memory.remove(key)
		}
	}
	for _, lookup := range w.lookups {
		if lookup != "redis mismatch" {
			t.Fatalf("a look-up ended as %s", lookup)
		}
	}
}
