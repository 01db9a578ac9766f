package keycloakcacheauth

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func cacheOf(a answered) string { return a.placeholder("http.keycloak_cache_auth.cache") }

// flushAll flushes everybody on this handler's stores.
func flushAll(tb testing.TB, h *Handler) {
	tb.Helper()
	for _, s := range h.members.stores.all {
		if _, err := s.Flush(tb.Context(), store.Scope{All: true}, nil); err != nil {
			tb.Fatal(err)
		}
	}
}

// eventually waits until a condition holds.
func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			tb.Fatalf("%s did not happen", what)
		}
	}
}

var errSourceDown = errors.New("the source is down")

// down makes the source fail.
func (s *fakeSource) down() {
	s.respond(func(context.Context, member.Query) (*member.Member, error) { return nil, errSourceDown })
}

// That somebody is no member is remembered for a short while, and forgotten
// when it may have changed.
func TestUnknownUsersAreRemembered(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	for name, tc := range map[string]struct {
		user string
		want outcome
	}{
		"no member":       {"dave", outcomeNotAMember},
		"an inactive one": {"carol", outcomeMemberInactive},
	} {
		t.Run(name, func(t *testing.T) {
			fields := bearer(s.token(tc.user), "t1")
			before := s.source.called()
			for range 3 {
				if got := send(t, h, fields); got.status != 403 || reasonOf(got) != string(tc.want) {
					t.Fatalf("status %d, %s", got.status, reasonOf(got))
				}
			}
			if calls := s.source.called() - before; calls != 1 {
				t.Errorf("three requests made %d calls", calls)
			}
			s.source.put(&member.Member{Tenant: "t1", KCID: s.users[tc.user].ID, ID: "m-new", Active: true})
			flushAll(t, h)
			if got := send(t, h, fields); got.status != 0 {
				t.Errorf("after a flush: status %d, %s", got.status, reasonOf(got))
			}
		})
	}
}

func TestNegativeTTL(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) { h.NegativeTTL = caddy.Duration(time.Millisecond) }))
	fields := bearer(s.token("dave"), "t1")
	if got := send(t, h, fields); got.status != 403 {
		t.Fatalf("status %d", got.status)
	}
	s.source.put(&member.Member{Tenant: "t1", KCID: s.users["dave"].ID, ID: "m-dave", Active: true})
	eventually(t, "being a member", func() bool { return send(t, h, fields).status == 0 })
}

// While the resolvers fail, members that are too old serve; a resolver that
// answers always wins.
func TestStaleMembers_RS004(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) {
		h.TTL, h.StaleIfError = caddy.Duration(20*time.Millisecond), caddy.Duration(time.Hour)
		h.NegativeTTL = caddy.Duration(time.Millisecond)
	}))
	alice := bearer(s.token("alice"), "t1")
	if got := send(t, h, alice); got.status != 0 {
		t.Fatalf("status %d", got.status)
	}
	s.source.down()
	eventually(t, "serving stale", func() bool {
		got := send(t, h, alice)
		if got.status != 0 {
			t.Fatalf("with the source down: status %d, %s", got.status, reasonOf(got))
		}
		return cacheOf(got) == "stale"
	})
	if got := testutil.ToFloat64(h.metrics.stale); got != 1 {
		t.Errorf("the gauge of stale members is %v", got)
	}
	if got := send(t, h, bearer(s.token("bob"), "t1")); got.status != 503 {
		t.Errorf("somebody who is in no cache gets status %d", got.status)
	}
	t.Run("a member again", func(t *testing.T) {
		s.source.respond(nil)
		eventually(t, "serving fresh", func() bool { return cacheOf(send(t, h, alice)) != "stale" })
		eventually(t, "the gauge at zero", func() bool { return testutil.ToFloat64(h.metrics.stale) == 0 })
	})
	t.Run("not a member any more", func(t *testing.T) {
		s.source.down()
		eventually(t, "serving stale", func() bool { return cacheOf(send(t, h, alice)) == "stale" })
		s.source.respond(func(context.Context, member.Query) (*member.Member, error) { return nil, member.ErrUnknown })
		eventually(t, "being refused", func() bool { return send(t, h, alice).status == 403 })
		s.source.down()
		if got := send(t, h, alice); got.status == 0 {
			t.Errorf("the source is down again, and she is back, from %s", cacheOf(got))
		}
	})
}

// RS-003, CI-022: a member who is known needs no resolver, and that a resolver
// failed is never remembered.
func TestFailedResolverIsNotRemembered(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	alice, bob := bearer(s.token("alice"), "t1"), bearer(s.token("bob"), "t1")
	if got := send(t, h, alice); got.status != 0 {
		t.Fatalf("status %d", got.status)
	}
	s.source.down()
	t.Run("RS-003 a member in the cache", func(t *testing.T) {
		if got := send(t, h, alice); got.status != 0 || cacheOf(got) != "memory" {
			t.Errorf("status %d from %q", got.status, cacheOf(got))
		}
	})
	t.Run("CI-022 one who is not", func(t *testing.T) {
		if got := send(t, h, bob); got.status != 503 {
			t.Errorf("with the source down: status %d", got.status)
		}
		s.source.respond(nil)
		if got := send(t, h, bob); got.status != 0 {
			t.Errorf("with the source back: status %d, %s", got.status, reasonOf(got))
		}
	})
}

// However many ask for a member whose time has passed, it is resolved once.
func TestHotMemberIsResolvedOncePerTTL(t *testing.T) {
	t.Run("CC-007", func(t *testing.T) {
		s := newSite(t)
		const ttl = 50 * time.Millisecond
		h, _ := load(t, s.config(func(h *Handler) { h.TTL = caddy.Duration(ttl) }))
		alice := bearer(s.token("alice"), "t1")
		start := time.Now()
		var crowd sync.WaitGroup
		for range 8 {
			crowd.Go(func() {
				for time.Since(start) < 10*ttl {
					if got := send(t, h, alice); got.status != 0 {
						t.Errorf("status %d", got.status)
						return
					}
				}
			})
		}
		crowd.Wait()
		// jitter takes up to a tenth off the ttl
		if most := int(time.Since(start)/(ttl*9/10)) + 1; s.source.called() > most {
			t.Errorf("%d calls, want at most %d", s.source.called(), most)
		}
	})
}

// A failed look-up of one member says nothing about another.
func TestTroubleIsOneMembers(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) {
		h.TTL, h.StaleIfError = caddy.Duration(20*time.Millisecond), caddy.Duration(time.Hour)
	}))
	alice, bob := bearer(s.token("alice"), "t1"), bearer(s.token("bob"), "t1")
	if got := send(t, h, alice); got.status != 0 {
		t.Fatalf("status %d", got.status)
	}
	s.source.down()
	if got := send(t, h, bob); got.status != 503 {
		t.Fatalf("status %d", got.status)
	}
	s.source.respond(func(context.Context, member.Query) (*member.Member, error) { return nil, member.ErrUnknown })
	eventually(t, "being refused", func() bool {
		got := send(t, h, alice)
		if cacheOf(got) == "stale" {
			t.Fatal("she serves stale, though the source answers")
		}
		return got.status == 403
	})
}

// What a resolver whose answers are not kept says ends what was kept before.
func TestUncachedAnswersEndWhatWasCached(t *testing.T) {
	s := newSite(t)
	second := newFakeSourceNamed(t, t.Name()+"/second")
	second.uncached = true
	h, _ := load(t, s.config(func(h *Handler) {
		h.TTL, h.StaleIfError = caddy.Duration(20*time.Millisecond), caddy.Duration(time.Hour)
		h.ResolversRaw = append(h.ResolversRaw, second.raw())
	}))
	alice := bearer(s.token("alice"), "t1")
	if got := send(t, h, alice); got.status != 0 {
		t.Fatalf("status %d", got.status)
	}
	s.source.respond(func(context.Context, member.Query) (*member.Member, error) { return nil, member.ErrUnknown })
	eventually(t, "being refused", func() bool { return send(t, h, alice).status == 403 })
	s.source.down()
	if got := send(t, h, alice); got.status == 0 {
		t.Errorf("with the source down she is back, from %s", cacheOf(got))
	}
}

// While the source fails, it is not asked at each request.
func TestFailingSourceIsNotAskedAtEachRequest(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) {
		h.TTL, h.StaleIfError = caddy.Duration(20*time.Millisecond), caddy.Duration(time.Hour)
	}))
	alice := bearer(s.token("alice"), "t1")
	if got := send(t, h, alice); got.status != 0 {
		t.Fatalf("status %d", got.status)
	}
	s.source.down()
	eventually(t, "serving stale", func() bool { return cacheOf(send(t, h, alice)) == "stale" })
	start, calls := time.Now(), s.source.called()
	for range 200 {
		send(t, h, alice)
	}
	if made, most := s.source.called()-calls, int(time.Since(start)/retryPause)+2; made > most {
		t.Errorf("200 requests made %d calls, want at most %d", made, most)
	}
}

// Without stale_if_error a member that is too old does not serve.
func TestNoStaleMembersUnlessConfigured(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) { h.TTL = caddy.Duration(20 * time.Millisecond) }))
	alice := bearer(s.token("alice"), "t1")
	if got := send(t, h, alice); got.status != 0 {
		t.Fatalf("status %d", got.status)
	}
	s.source.down()
	eventually(t, "503", func() bool { return send(t, h, alice).status == 503 })
}

// While a resolver hangs, nobody waits for it whose member could serve stale.
func TestStaleMembersDoNotWait(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) {
		h.TTL, h.StaleIfError = caddy.Duration(20*time.Millisecond), caddy.Duration(time.Hour)
		h.Timeout = caddy.Duration(200 * time.Millisecond)
	}))
	alice := bearer(s.token("alice"), "t1")
	if got := send(t, h, alice); got.status != 0 {
		t.Fatalf("status %d", got.status)
	}
	s.source.respond(func(ctx context.Context, _ member.Query) (*member.Member, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	eventually(t, "serving stale", func() bool { return cacheOf(send(t, h, alice)) == "stale" })
	calls := s.source.called()
	for range 100 {
		if got := send(t, h, alice); got.status != 0 {
			t.Fatalf("status %d", got.status)
		}
	}
	if made := s.source.called() - calls; made > 5 {
		t.Errorf("100 requests made %d calls to a source that hangs", made)
	}
}

// A member in use is renewed before it is too old, and nobody waits.
func TestRefreshAhead(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) {
		h.TTL, h.RefreshAhead = caddy.Duration(time.Hour), caddy.Duration(45*time.Minute)
	}))
	var passed atomic.Int64 // a time.Duration
	h.members.now = func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }
	alice := bearer(s.token("alice"), "t1")
	if got := send(t, h, alice); cacheOf(got) != "resolver" {
		t.Fatalf("from %q, status %d", cacheOf(got), got.status)
	}
	passed.Store(int64(30 * time.Minute))
	t.Run("renewed", func(t *testing.T) {
		s.source.put(&member.Member{Tenant: "t1", KCID: s.users["alice"].ID, ID: "m-renewed", Active: true})
		eventually(t, "the renewed member", func() bool {
			got := send(t, h, alice)
			if got.status != 0 || cacheOf(got) != "memory" {
				t.Fatalf("status %d from %q: somebody waited", got.status, cacheOf(got))
			}
			return got.placeholder("http.auth.user.member_id") == "m-renewed"
		})
	})
	t.Run("the source fails", func(t *testing.T) {
		s.source.down()
		calls := s.source.called()
		eventually(t, "a call", func() bool {
			if got := send(t, h, alice); got.status != 0 {
				t.Fatalf("status %d, %s", got.status, reasonOf(got))
			}
			return s.source.called() > calls
		})
	})
	t.Run("not a member any more", func(t *testing.T) {
		s.source.respond(func(context.Context, member.Query) (*member.Member, error) { return nil, member.ErrUnknown })
		passed.Add(int64(2 * retryPause)) // the pause after the failure is over
		eventually(t, "being refused", func() bool { return send(t, h, alice).status == 403 })
	})
}

// IV-001: what was read before a flush is given to nobody who came after it,
// though they waited for the same look-up.
func TestFlushDuringALookup(t *testing.T) {
	for name, more := range map[string]*store.Scope{
		"IV-001 CC-003":               nil,
		"IV-001 and one more of all":  {All: true},
		"IV-001 and one of somebody":  {Tenant: "t1", MemberID: "m-other"},
		"IV-001 and one of elsewhere": {Tenant: "t2"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			h, _ := load(t, s.config())
			alice := bearer(s.token("alice"), "t1")
			entered, goOn := make(chan struct{}), make(chan struct{})
			var once sync.Once
			s.source.respond(func(_ context.Context, q member.Query) (*member.Member, error) {
				m := &member.Member{Tenant: q.Tenant, KCID: q.KCID, ID: "m-new", Active: true}
				once.Do(func() {
					m.ID = "m-old"
					close(entered)
					<-goOn
				})
				return m, nil
			})
			before, after := make(chan answered, 1), make(chan answered, 1)
			go func() { before <- send(t, h, alice) }()
			<-entered
			flushAll(t, h)
			misses := func() float64 {
				return testutil.ToFloat64(h.metrics.lookups.WithLabelValues("memory", "miss"))
			}
			asked := misses()
			go func() { after <- send(t, h, alice) }()
			eventually(t, "the second request's look-up in memory", func() bool { return misses() > asked })
			if more != nil { // what came before is not forgotten over it
				if _, err := h.members.stores.common.Flush(t.Context(), *more, nil); err != nil {
					t.Fatal(err)
				}
			}
			close(goOn)
			<-before // may have either
			if got := <-after; got.placeholder("http.auth.user.member_id") != "m-new" {
				t.Errorf("who came after the flush got %q", got.placeholder("http.auth.user.member_id"))
			}
			if got := send(t, h, alice); got.placeholder("http.auth.user.member_id") != "m-new" {
				t.Errorf("the next got %q from %s", got.placeholder("http.auth.user.member_id"), cacheOf(got))
			}
		})
	}
}

// A crowd of new members waits its turn at the resolver, and gets in.
func TestColdCacheDoesNotOverrunTheResolver(t *testing.T) {
	t.Run("CC-002 RS-017", func(t *testing.T) {
		s := newSite(t)
		h, _ := load(t, s.config(func(h *Handler) { h.MaxLookups, h.MaxLookupsPerTenant = 4, 2 }))
		var mu sync.Mutex
		inside, most := 0, 0
		answer := make(chan struct{})
		s.source.respond(func(_ context.Context, q member.Query) (*member.Member, error) {
			mu.Lock()
			inside++
			most = max(most, inside)
			mu.Unlock()
			<-answer
			mu.Lock()
			inside--
			mu.Unlock()
			return &member.Member{Tenant: q.Tenant, KCID: q.KCID, ID: "m", Active: true}, nil
		})
		alice := s.token("alice")
		var done sync.WaitGroup
		for i := range 60 {
			tenant := "t" + string(rune('a'+i%20))
			done.Go(func() {
				if got := send(t, h, bearer(alice, tenant)); got.status != 0 {
					t.Errorf("status %d, %s", got.status, reasonOf(got))
				}
			})
		}
		gate := h.members.gate
		eventually(t, "every tenant's look-up is inside or waits", func() bool {
			gate.mu.Lock()
			defer gate.mu.Unlock()
			return gate.inside+gate.waiting == 20
		})
		close(answer)
		done.Wait()
		if most > 4 {
			t.Errorf("%d calls at a time", most)
		}
	})
}

// Tenants with a store of their own are in no other, whatever becomes of it.
func TestStoresOfTenants(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) {
		h.Stores = []*Store{{URL: "memory://"}, {URL: "redis://127.0.0.1:1", Tenants: []string{"t2"}}}
	}))
	for _, tenant := range []string{"t1", "t2"} {
		for _, want := range []string{"resolver", "memory"} {
			if got := send(t, h, bearer(s.token("alice"), tenant)); got.status != 0 || cacheOf(got) != want {
				t.Errorf("%s: status %d from %q, want %s", tenant, got.status, cacheOf(got), want)
			}
		}
	}
	own, common := h.members.stores.of("t2"), h.members.stores.of("t1")
	if own.memberStore == common.memberStore {
		t.Fatal("both tenants are in one store")
	}
	if own.Stats().Entries != 1 || common.Stats().Entries != 1 {
		t.Errorf("the stores have %d and %d members", own.Stats().Entries, common.Stats().Entries)
	}
	if _, err := common.Flush(t.Context(), store.Scope{All: true}, nil); err != nil {
		t.Fatal(err)
	}
	if got := send(t, h, bearer(s.token("alice"), "t2")); cacheOf(got) != "memory" {
		t.Errorf("a flush of the other store cost it its member: it came from %s", cacheOf(got))
	}
}

// What resolvers read of the token besides is part of the question: another
// token, another answer.
func TestClaimsArePartOfTheQuestion(t *testing.T) {
	s := newSite(t)
	s.source.claims = []string{"level"}
	h, _ := load(t, s.config())
	s.source.respond(func(_ context.Context, q member.Query) (*member.Member, error) {
		return &member.Member{Tenant: q.Tenant, KCID: q.KCID, ID: "level " + q.Claims["level"].Text(), Active: true}, nil
	})
	for range 2 {
		for _, level := range []any{"gold", "silver", 7, nil} {
			token := s.token("alice", claimOrNone("level", level))
			want := "level "
			switch level := level.(type) {
			case string:
				want += level
			case int:
				want += "7"
			}
			if got := send(t, h, bearer(token, "t1")); got.placeholder("http.auth.user.member_id") != want {
				t.Errorf("with level %v she is %q, want %q", level, got.placeholder("http.auth.user.member_id"), want)
			}
		}
	}
	if calls := s.source.called(); calls != 4 {
		t.Errorf("four questions, asked twice, made %d calls", calls)
	}
}

// claimOrNone sets a claim, or drops it for nil.
func claimOrNone(name string, value any) kctest.Option {
	if value == nil {
		return kctest.Without(name)
	}
	return kctest.Claim(name, value)
}
