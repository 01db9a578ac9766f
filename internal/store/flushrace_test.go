package store

import (
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// Three nodes serve one member from memory, Redis and a database, in which the
// member changes all the time. Each change is followed by a flush on one node,
// which must never serve an older version to whoever asks afterwards.
func TestFlushWinsUnderLoad(t *testing.T) {
	f := newFakeRedis(t)
	m, want := alice()
	var database atomic.Int64
	ask := func(s *Store) int64 {
		entry, _ := s.Memory("k", want)
		if entry == nil {
			l := s.Begin("k", want, nil)
			if entry, _, _ = l.Get(t.Context()); entry == nil {
				loaded := *m
				loaded.Attributes = map[string]member.Value{"version": member.Text(strconv.FormatInt(database.Load(), 10))}
				entry = l.Put(t.Context(), &loaded, time.Minute, 0)
			}
		}
		version, _ := strconv.ParseInt(entry.Member.Attribute("version").Text(), 10, 64)
		return version
	}
	scopes := make([]Scope, 0, 6)
	for _, scope := range aliceScopes() {
		scopes = append(scopes, scope)
	}

	stop := make(chan struct{})
	var using sync.WaitGroup
	var answers atomic.Int64
	for range 3 {
		s := newTestStore(t, Config{URL: f.url(), Timeout: 5 * time.Second})
		var flushed atomic.Int64 // the version up to which this node has flushed
		for range 4 {
			using.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					least := flushed.Load()
					if got := ask(s); got < least {
						t.Errorf("version %d is served after the flush of %d", got, least)
						return
					}
					answers.Add(1)
				}
			})
		}
		using.Go(func() {
			for range 150 {
				version := database.Add(1)
				if _, err := s.Flush(t.Context(), scopes[rand.N(len(scopes))], nil); err != nil {
					t.Errorf("flush: %v", err)
					return
				}
				for least := flushed.Load(); least < version && !flushed.CompareAndSwap(least, version); {
					least = flushed.Load()
				}
				pass(time.Duration(rand.N(1000)) * time.Microsecond)
			}
		})
	}
	eventually(t, "enough was asked", func() bool { return answers.Load() > 2000 && database.Load() == 3*150 })
	close(stop)
	using.Wait()
}

func TestGenerationOfAnotherNodeMakesAllInvalid(t *testing.T) {
	f := newFakeRedis(t)
	s := sharing(t, f, nil)
	m, want := alice()
	s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
	f.appended("kind", "generation", "id", "another")
	caughtUp(t, f, s)
	if _, result := s.Memory("k", want); result != Fenced {
		t.Errorf("memory: %s", result)
	}
	w := &witness{}
	if entry, _, _ := s.Begin("k", want, w).Get(t.Context()); entry != nil {
		t.Errorf("Redis has %v", entry)
	}
	w.expect(t, "look-ups", &w.lookups, "redis fenced")
	s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
	if n := len(f.ofKind(kindGeneration)); n != 2 {
		t.Errorf("%d generations", n)
	}
	late := sharing(t, f, nil)
	if _, level, _ := late.Begin("k", want, nil).Get(t.Context()); level != Redis {
		t.Errorf("what was loaded afterwards is not used: %s", level)
	}
}
