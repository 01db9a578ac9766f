package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// caughtUp waits until a store has read all that stands in the log, and all
// that it has appended itself.
func caughtUp(t *testing.T, f *fakeRedis, stores ...*Store) {
	t.Helper()
	for _, s := range stores {
		eventually(t, "the node has read the log", func() bool {
			f.mu.Lock()
			end := f.events[len(f.events)-1].at
			f.mu.Unlock()
			h := s.log.head.Load()
			s.log.sent.mu.Lock()
			defer s.log.sent.mu.Unlock()
			return h != nil && h.last.at == end && len(s.log.sent.items) == 0
		})
	}
}

// aliceScopes are all scopes that she is in.
func aliceScopes() map[string]Scope {
	m, _ := alice()
	return map[string]Scope{
		"everybody":                   {All: true},
		"her tenant":                  {Tenant: m.Tenant},
		"the member":                  {Tenant: m.Tenant, KCID: m.KCID},
		"the member by id":            {Tenant: m.Tenant, MemberID: m.ID},
		"the user in all tenants":     {Issuer: testIssuer, KCID: m.KCID},
		"the user of whatever issuer": {KCID: m.KCID},
	}
}

func TestFlushWins(t *testing.T) {
	t.Parallel()
	// Each way lets alice's old record take another way into the cache, and a
	// flush happen on that way. Nothing of her may be left on any node.
	ways := map[string]func(t *testing.T, s *Store, f *fakeRedis, flush func()){
		"over what is in both levels": func(t *testing.T, s *Store, _ *fakeRedis, flush func()) {
			m, want := alice()
			s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
			flush()
		},
		"over a load that began before": func(t *testing.T, s *Store, f *fakeRedis, flush func()) {
			m, want := alice()
			l := s.Begin("k", want, nil)
			flush()
			if !l.Overtaken() {
				t.Error("the look-up does not know that it was overtaken")
			}
			l.Put(t.Context(), m, time.Minute, 0)
			if n := f.count("SET") + s.Stats().Entries; n > 0 || !l.Overtaken() {
				t.Error("it was stored, if only for a moment")
			}
		},
		"over a read that began before": func(t *testing.T, s *Store, f *fakeRedis, flush func()) {
			_, want := alice()
			var once sync.Once
			f.on(func(args []string) {
				if args[0] == "GETRANGE" {
					once.Do(flush)
				}
			})
			f.set("k", aliceText)
			w := &witness{}
			if entry, level, _ := s.Begin("k", want, w).Get(t.Context()); entry != nil || level != None {
				t.Errorf("the read returns %v from %s", entry, level)
			}
			w.expect(t, "the read", &w.lookups, "redis fenced")
		},
		"over a write while it is under way": func(t *testing.T, s *Store, f *fakeRedis, flush func()) {
			m, want := alice()
			var once sync.Once
			f.on(func(args []string) {
				if args[0] == "SET" {
					once.Do(flush)
				}
			})
			s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
			f.set("k", aliceText) // should that have been tidied up
		},
		"over a promotion that waits": func(t *testing.T, s *Store, f *fakeRedis, flush func()) {
			_, want := alice()
			f.set("k", aliceText)
			entry, level, _ := s.Begin("k", want, nil).Get(t.Context())
			if level != Redis {
				t.Fatalf("the case is not what it should be: %s", level)
			}
			flush()
			_ = s.memory.Set(t.Context(), "k", entry) // as the chain would promote
		},
		"over what another node writes later": func(_ *testing.T, _ *Store, f *fakeRedis, flush func()) {
			flush()
			f.set("k", aliceText)
		},
	}
	flushes := map[string]func(t *testing.T, here, there *Store, f *fakeRedis, scope Scope){
		"by this node": func(t *testing.T, here, _ *Store, _ *fakeRedis, scope Scope) {
			if flushed, err := here.Flush(t.Context(), scope, nil); err != nil || flushed != (Flushed{true, SharedDone}) {
				t.Errorf("%+v, error %v", flushed, err)
			}
		},
		"by another node": func(t *testing.T, here, there *Store, f *fakeRedis, scope Scope) {
			if _, err := there.Flush(t.Context(), scope, nil); err != nil {
				t.Error(err)
			}
			caughtUp(t, f, here)
		},
		"by another program": func(t *testing.T, here, _ *Store, f *fakeRedis, scope Scope) {
			e := event{kind: kindFlush, scope: scope}
			f.appended(e.fields()...)
			caughtUp(t, f, here)
		},
	}
	for _, way := range slices.Sorted(maps.Keys(ways)) {
		for _, by := range slices.Sorted(maps.Keys(flushes)) {
			for name, scope := range aliceScopes() {
				t.Run(way+", "+by+", of "+name, func(t *testing.T) {
					t.Parallel()
					f, clock := newFakeRedis(t), newTestClock()
					cfg := Config{URL: f.url(), Now: clock.now, Timeout: 5 * time.Second}
					here, there := newTestStore(t, cfg), newTestStore(t, cfg)
					caughtUp(t, f, here, there)
					ways[way](t, here, f, func() { flushes[by](t, here, there, f, scope) })
					f.on(nil)
					_, want := alice()
					check := func(s *Store) {
						t.Helper()
						if entry, _ := s.Memory("k", want); entry != nil {
							t.Error("memory still has her")
						}
						if entry, level, _ := s.Begin("k", want, nil).Get(t.Context()); entry != nil {
							t.Errorf("%s still has her", level)
						}
					}
					check(here)
					caughtUp(t, f, here, there)
					check(here)
					check(there)
					_ = here.Destruct()
					if entry, _ := here.Memory("k", want); entry != nil {
						t.Error("a promotion brings her back")
					}
				})
			}
		}
	}
}

func TestFlushSparesOthersAndEndsInTheMomentItIsRead(t *testing.T) {
	f := newFakeRedis(t)
	here, there := sharing(t, f, nil), sharing(t, f, nil)
	m, want := alice()
	bob := &member.Member{KCID: "bob", Tenant: m.Tenant, Issuer: testIssuer, Active: true, ID: "4712"}
	wantBob := Want{Tenant: m.Tenant, Issuer: testIssuer, KCID: "bob", TTL: time.Minute}
	for name, scope := range aliceScopes() {
		here.Begin("b", wantBob, nil).Put(t.Context(), bob, time.Minute, 0)
		if _, err := here.Flush(t.Context(), scope, nil); err != nil {
			t.Fatal(err)
		}
		caughtUp(t, f, here, there)
		if _, result := here.Memory("b", wantBob); (result == Hit) != (name != "everybody" && name != "her tenant") {
			t.Errorf("%s: the other member is %s", name, result)
		}
		here.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
		if entry, level, _ := there.Begin("k", want, nil).Get(t.Context()); level != Redis {
			t.Errorf("%s: what was loaded afterwards is %v from %s", name, entry, level)
		}
		there.memory.remove("k")
	}
	bobsAgain := there.Begin("b", wantBob, nil)
	here.Begin("b", wantBob, nil).Put(t.Context(), bob, time.Minute, 0)
	if _, level, _ := bobsAgain.Get(t.Context()); level != Redis {
		t.Fatalf("the case is not what it should be: %s", level)
	}
	eventually(t, "it is promoted", func() bool { _, result := there.Memory("b", wantBob); return result == Hit })
	f.appended(lineOf(flushEvent(Scope{Tenant: m.Tenant, MemberID: m.ID}))...)
	caughtUp(t, f, there)
	if _, result := there.Memory("b", wantBob); result != Hit {
		t.Errorf("what came from Redis is %s after a flush of another id", result)
	}
	if n := here.Stats().Flushes; n != uint64(len(aliceScopes())) {
		t.Errorf("%d flushes are counted", n)
	}
}

func TestFlushWithoutRedisHoldsHere(t *testing.T) {
	for name, scope := range aliceScopes() {
		t.Run(name, func(t *testing.T) {
			s := newTestStore(t, Config{})
			m, want := alice()
			s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
			if flushed, err := s.Flush(t.Context(), scope, nil); err != nil || flushed != (Flushed{true, SharedNone}) {
				t.Errorf("%+v, error %v", flushed, err)
			}
			if _, result := s.Memory("k", want); result != Fenced {
				t.Errorf("memory: %s", result)
			}
		})
	}
}

func TestFlushThatCannotBeSentHoldsHereAndIsSentLater(t *testing.T) {
	t.Parallel()
	for name, scope := range aliceScopes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, w := newFakeRedis(t), &witness{}
			here, there := sharing(t, f, nil), sharing(t, f, nil)
			m, want := alice()
			there.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
			f.answer("-READONLY You can't write against a read only replica.", "XADD")
			flushed, err := here.Flush(t.Context(), scope, w)
			if !errors.Is(err, ErrUnavailable) || flushed != (Flushed{true, SharedPending}) {
				t.Fatalf("%+v, error %v", flushed, err)
			}
			w.expect(t, "operations", &w.ops, "append failed")
			if n := here.Stats().Log.Pending; n != 1 {
				t.Errorf("%d events are pending", n)
			}
			// Another node goes on with what it has, at whatever position.
			f.appended(lineOf(flushEvent(Scope{Tenant: "another"}))...)
			caughtUp(t, f, there)
			there.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
			if entry, level, _ := here.Begin("k", want, nil).Get(t.Context()); entry != nil {
				t.Errorf("this node has %v from %s", entry, level)
			}
			if _, result := there.Memory("k", want); result != Hit {
				t.Fatalf("the case is not what it should be: %s", result)
			}

			f.answer("", "XADD")
			eventually(t, "the other node learns of it", func() bool {
				_, result := there.Memory("k", want)
				return result != Hit
			})
			caughtUp(t, f, here, there)
			if entry, level, _ := there.Begin("k", want, nil).Get(t.Context()); entry != nil {
				t.Errorf("the other node has %v from %s", entry, level)
			}
			if n := here.Stats().Log.Pending; n != 0 {
				t.Errorf("%d events are pending", n)
			}
			there.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
			if _, level, _ := here.Begin("k", want, nil).Get(t.Context()); level != Redis {
				t.Errorf("afterwards it is not used: %s", level)
			}
		})
	}
}

func lineOf(e event) []string { return e.fields() }

func TestFlushThatWasAcknowledgedAndLostIsAddedAgain(t *testing.T) {
	f, w := newFakeRedis(t), &witness{}
	here, there := sharing(t, f, nil), sharing(t, f, nil)
	m, want := alice()
	there.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
	f.answer("$15\r\n1767225590001-0", "XADD") // and does nothing
	if flushed, err := here.Flush(t.Context(), Scope{Tenant: m.Tenant}, w); err != nil || flushed.Shared != SharedDone {
		t.Fatalf("%+v, error %v", flushed, err)
	}
	if entry, _, _ := here.Begin("k", want, nil).Get(t.Context()); entry != nil {
		t.Error("this node uses an entry from before")
	}
	f.answer("", "XADD")
	eventually(t, "the other node learns of it", func() bool {
		_, result := there.Memory("k", want)
		return result != Hit
	})
	caughtUp(t, f, here)
	eventually(t, "it is told", func() bool {
		here.Begin("k", want, w).Get(t.Context())
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.news.Repeated > 0
	})
	if n := len(f.ofKind(kindFlush)); n == 0 || n > 2 {
		t.Errorf("it stands in the log %d times", n)
	}
}

func TestFlushesThatCannotBeSentStayFew(t *testing.T) {
	tests := map[string]struct {
		scope func(i int) Scope
		want  Scope
		after int
	}{
		"members of one tenant become the tenant": {
			func(i int) Scope { return Scope{Tenant: "acme", KCID: fmt.Sprint(i)} }, Scope{Tenant: "acme"}, 1,
		},
		"members of many tenants become everybody": {
			func(i int) Scope { return Scope{Tenant: fmt.Sprint(i), KCID: "8d0c"} }, Scope{All: true}, 1,
		},
		"users of no tenant become everybody": {
			func(i int) Scope { return Scope{KCID: fmt.Sprint(i)} }, Scope{All: true}, 1,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g := newTestLog(t, &memoryLog{})
			for i := range maxOutgoing + 1 {
				g.sendDone(g.hold(flushEvent(test.scope(i))), ErrUnavailable)
			}
			items := slices.Collect(maps.Values(g.sent.items))
			if len(items) != test.after || items[0].event.scope != test.want || items[0].sending || items[0].acked {
				t.Fatalf("%d are left", len(items))
			}
			for i := range g.held {
				held := g.held[i].Load()
				if want := slices.Contains(items[0].places, uint16(i)); (held == 1) != want || held > 1 {
					t.Fatalf("place %d is held %d times", i, held)
				}
			}
			if g.news.news.Collapsed != 1 {
				t.Error("that is not counted")
			}
		})
	}
}

func TestLogoutsThatCannotBeSentAreNotForgotten(t *testing.T) {
	g := newTestLog(t, &memoryLog{})
	until := g.now().Add(time.Hour).Unix()
	for i := range maxOutgoing + 1 {
		stone := tombstone{testIssuer, fmt.Sprint(i), "", 1, until}
		g.logouts.add(stone, g.now())
		g.sendDone(g.hold(logoutEvent(stone)), ErrUnavailable)
	}
	if n := len(g.sent.items); n != 0 { // none of them flushes anybody
		t.Errorf("%d wait to be sent", n)
	}
	if n := len(g.logouts.unsaid); n != maxOutgoing+1 {
		t.Errorf("%d are to be said again", n)
	}
}

func TestMalformedEventsAreToldAndFlushEverybody(t *testing.T) {
	f, w := newFakeRedis(t), &witness{}
	s := sharing(t, f, nil)
	m, want := alice()
	s.Begin("k", want, w).Put(t.Context(), m, time.Minute, 0)
	at := f.appended("kind", "flush", "scope", "galaxy")
	caughtUp(t, f, s)
	if _, result := s.Memory("k", want); result != Fenced {
		t.Errorf("memory: %s", result)
	}
	f.appended("kind", "party")
	caughtUp(t, f, s)
	s.Begin("k", want, w).Get(t.Context())
	if w.news.Malformed != 1 || w.news.MalformedAt != at.String() {
		t.Errorf("told %+v", w.news)
	}
	w.news = LogNews{}
	s.Begin("k", want, w).Get(t.Context())
	if w.news != (LogNews{}) {
		t.Errorf("told again: %+v", w.news)
	}
}

func TestSecretsAreNotInErrorsOfFlushes(t *testing.T) {
	s := newTestStore(t, Config{URL: "redis://me:s3cret@127.0.0.1:1/0"})
	_, err := s.Flush(t.Context(), Scope{All: true}, nil)
	if !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("error is %v", err)
	}
	if _, err := s.Flush(t.Context(), Scope{All: true}, nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("error is %v", err)
	}
}
