package keycloakcacheauth

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// Who comes while a look-up is under way shares what it finds, and who comes later
// does not.
func TestFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all flights
		key := flightKey{key: "k"}
		first, leads := all.board(key)
		if !leads || first.landed != nil {
			t.Fatalf("the first one leads: %t; somebody waits: %t", leads, first.landed != nil)
		}
		var waiting sync.WaitGroup
		for range 3 {
			waiting.Go(func() {
				joined, leads := all.board(key)
				if leads || joined != first {
					t.Error("somebody begins a look-up of their own")
					return
				}
				<-joined.landed
				if joined.result.refused != outcomeNotAMember {
					t.Errorf("result %q", joined.result.refused)
				}
			})
		}
		synctest.Wait()
		for name, other := range map[string]flightKey{
			"another key": {key: "other"}, "another ttl": {key: "k", ttl: 1}, "another stale": {key: "k", stale: 1}, "a renewal": {key: "k", renewal: true},
		} {
			if _, leads := all.board(other); !leads {
				t.Errorf("%s shares it", name)
			}
		}
		all.land(key, first, flightResult{refused: outcomeNotAMember})
		waiting.Wait()
		if next, leads := all.board(key); !leads || next == first {
			t.Error("a look-up that has landed is joined")
		}
	})
}

func TestForgottenFlightLandsWithoutHarm(t *testing.T) {
	var all flights
	key := flightKey{key: "k"}
	slow, _ := all.board(key)
	all.await(slow)
	all.forget(key, slow)
	next, leads := all.board(key)
	if !leads {
		t.Fatal("a forgotten look-up is joined")
	}
	all.land(key, slow, flightResult{})
	<-slow.landed
	if joined, leads := all.board(key); leads || joined != next {
		t.Error("the landing of a forgotten look-up ends the next one")
	}
	all.land(key, next, flightResult{})
	if len(all.under) != 0 {
		t.Errorf("%d look-ups are left", len(all.under))
	}
}

// A resolver that ends its goroutine answers nobody, and must not leave them waiting.
func TestResolverThatEndsItsGoroutine(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	s.source.respond(func(context.Context, member.Query) (*member.Member, error) {
		runtime.Goexit()
		return nil, nil
	})
	if got := send(t, h, bearer(s.token("alice"), "t1")); got.status != 503 || reasonOf(got) != string(outcomeResolverError) {
		t.Errorf("status %d, reason %q", got.status, reasonOf(got))
	}
	s.source.respond(nil)
	if got := send(t, h, bearer(s.token("alice"), "t1")); got.status != 0 {
		t.Errorf("afterwards: status %d", got.status)
	}
}
