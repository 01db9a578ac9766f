package keycloakcacheauth

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap/zapcore"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func TestSecondRequestIsServedFromMemory(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	fields := bearer(s.token("alice"), "t1")
	for i, want := range []source{sourceResolver, sourceMemory, sourceMemory} {
		got := send(t, h, fields)
		if from := got.placeholder("http.keycloak_cache_auth.cache"); got.status != 0 || from != string(want) {
			t.Errorf("request %d: status %d from %q, want it from %q", i, got.status, from, want)
		}
	}
	if calls := s.source.called(); calls != 1 {
		t.Errorf("the resolver was called %d times", calls)
	}
}

// The tenants of one user are kept apart, and so are the users of one tenant.
func TestCachedMembersAreNotMixedUp(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	for range 2 {
		for _, tc := range []struct{ user, tenant, want string }{
			{"alice", "t1", "m-alice-1"}, {"alice", "t2", "m-alice-2"}, {"bob", "t1", "m-bob"},
		} {
			got := send(t, h, bearer(s.token(tc.user), tc.tenant))
			if id := got.request.Get("X-Member-ID"); id != tc.want {
				t.Errorf("%s in %s is %q, want %q", tc.user, tc.tenant, id, tc.want)
			}
		}
	}
}

// A cached member that is not the token's user means that somebody wrote to the
// cache who should not have. It must be told, forgotten and resolved again.
func TestCachedMemberThatFailsTheCheckIsResolvedAgain(t *testing.T) {
	for name, corrupt := range map[string]func(*member.Member){
		"another user":      func(m *member.Member) { m.KCID = "somebody-else" },
		"another tenant":    func(m *member.Member) { m.Tenant = "t2" },
		"another issuer":    func(m *member.Member) { m.Issuer = "https://elsewhere" },
		"CI-005 not active": func(m *member.Member) { m.Active = false },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			h, logs := load(t, s.config())
			alice := s.users["alice"].ID
			wrong := &member.Member{Tenant: "t1", KCID: alice, ID: "m-wrong", Active: true}
			corrupt(plant(t, h, alice, "t1", wrong)) // only now: the cache refuses to take what does not fit

			fields := bearer(s.token("alice"), "t1")
			got := send(t, h, fields)
			if id := got.request.Get("X-Member-ID"); got.status != 0 || id != "m-alice-1" {
				t.Fatalf("status %d, member %q, want the right one", got.status, id)
			}
			if from := got.placeholder("http.keycloak_cache_auth.cache"); from != "resolver" {
				t.Errorf("the member came from %q", from)
			}
			lines := logs.FilterMessageSnippet("cached member does not fit").FilterLevelExact(zapcore.ErrorLevel)
			if lines.Len() != 1 {
				t.Errorf("%d error lines, want 1", lines.Len())
			}
			if n := testutil.CollectAndCount(h.metrics.mismatches); n != 1 {
				t.Errorf("%d kinds of mismatch counted, want 1", n)
			}
			if from := send(t, h, fields).placeholder("http.keycloak_cache_auth.cache"); from != "memory" {
				t.Errorf("afterwards the member came from %q, want the right one in memory", from)
			}
		})
	}
}

// plant puts a member into the cache as if it were the one of this user, and
// returns it as it is there.
func plant(tb testing.TB, h *Handler, kcID, tenant string, m *member.Member) *member.Member {
	tb.Helper()
	issuer := h.Issuers[0].URL
	want := store.Want{Tenant: tenant, Issuer: issuer, KCID: kcID, TTL: time.Minute}
	cached := h.members.stores.common
	lookup := cached.Begin(cached.keys.Member(tenant, issuer, kcID), want, nil)
	entry := lookup.Put(context.Background(), m, time.Minute, 0)
	if entry == nil {
		tb.Fatal("the cache took nothing")
	}
	return &entry.Member
}

// RS-005, RS-015: what a resolver returns is checked as well, and not cached.
func TestResolvedMemberThatFailsTheCheckIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		corrupt func(*member.Member)
		reason  outcome
	}{
		"another user":                   {func(m *member.Member) { m.KCID = "somebody-else" }, outcomeKCIDMismatch},
		"the user in other letters":      {func(m *member.Member) { m.KCID = strings.ToUpper(m.KCID) }, outcomeKCIDMismatch},
		"the user with trailing spaces":  {func(m *member.Member) { m.KCID += "  " }, outcomeKCIDMismatch},
		"another tenant":                 {func(m *member.Member) { m.Tenant = "t2" }, outcomeTenantOfMember},
		"the tenant in other letters":    {func(m *member.Member) { m.Tenant = "T1" }, outcomeTenantOfMember},
		"another issuer":                 {func(m *member.Member) { m.Issuer = "https://elsewhere" }, outcomeIssuerOfMember},
		"not active":                     {func(m *member.Member) { m.Active = false }, outcomeMemberInactive},
		"nobody at all, but in a member": {func(m *member.Member) { *m = member.Member{} }, outcomeKCIDMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			h, _ := load(t, s.config())
			wrong := &member.Member{Tenant: "t1", KCID: s.users["alice"].ID, ID: "m", Active: true}
			tc.corrupt(wrong)
			s.source.respond(func(context.Context, member.Query) (*member.Member, error) { return wrong, nil })
			for range 2 {
				got := send(t, h, bearer(s.token("alice"), "t1"))
				if reason := got.placeholder("http.keycloak_cache_auth.reason"); got.status != 403 || reason != string(tc.reason) {
					t.Errorf("status %d for %q, want 403 for %q", got.status, reason, tc.reason)
				}
			}
			s.source.respond(nil)
			if tc.reason == outcomeMemberInactive { // which is no fault, and remembered
				flushAll(t, h)
			}
			if got := send(t, h, bearer(s.token("alice"), "t1")); got.status != 0 {
				t.Errorf("once the resolver is right, status %d", got.status)
			}
		})
	}
}

func TestResolverTrouble(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func(context.Context, member.Query) (*member.Member, error)
		reason outcome
	}{
		"RS-002 fails":             {func(context.Context, member.Query) (*member.Member, error) { return nil, errors.New("refused") }, outcomeResolverError},
		"RS-001 is too slow":       {func(ctx context.Context, _ member.Query) (*member.Member, error) { <-ctx.Done(); return nil, ctx.Err() }, outcomeResolverTimeout},
		"RS-007 finds two members": {func(context.Context, member.Query) (*member.Member, error) { return nil, member.ErrAmbiguous }, outcomeResolverAmbiguous},
		"returns nothing":          {func(context.Context, member.Query) (*member.Member, error) { return nil, nil }, outcomeResolverError},
		"panics":                   {func(context.Context, member.Query) (*member.Member, error) { panic("boom") }, outcomeResolverError},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			h, _ := load(t, s.config(func(h *Handler) { h.Timeout = caddy.Duration(20 * time.Millisecond) }))
			fields := bearer(s.token("alice"), "t1")
			s.source.respond(tc.answer)
			got := send(t, h, fields)
			if reason := got.placeholder("http.keycloak_cache_auth.reason"); got.status != 503 || reason != string(tc.reason) {
				t.Errorf("status %d for %q, want 503 for %q", got.status, reason, tc.reason)
			}
			if got.response.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			s.source.respond(nil)
			if got := send(t, h, fields); got.status != 0 {
				t.Errorf("the trouble was remembered: status %d", got.status)
			}
			s.source.respond(tc.answer)
			if got := send(t, h, fields); got.status != 0 { // RS-003
				t.Errorf("a member in memory needed the resolver: status %d", got.status)
			}
		})
	}
}

func TestResolverTroubleIsLoggedOncePerChange(t *testing.T) {
	s := newSite(t)
	h, logs := load(t, s.config())
	fields := bearer(s.token("alice"), "t1")
	s.source.respond(func(context.Context, member.Query) (*member.Member, error) { return nil, errors.New("refused") })
	for range 5 {
		send(t, h, fields)
	}
	s.source.respond(nil)
	for range 2 {
		send(t, h, fields)
	}
	down := logs.FilterMessageSnippet("resolver cannot answer").Len()
	up := logs.FilterMessageSnippet("resolver answers again").Len()
	if down != 1 || up != 1 {
		t.Errorf("%d lines about the failure and %d about the recovery, want one of each", down, up)
	}
}

// A resolver that does not keep to its time must not hold requests for ever.
func TestRequestDoesNotWaitForAResolverThatIgnoresItsTime(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	h.members.patience = 20 * time.Millisecond
	release := make(chan struct{})
	defer close(release)
	s.source.respond(func(context.Context, member.Query) (*member.Member, error) {
		<-release
		return nil, errors.New("too late")
	})
	fields := bearer(s.token("alice"), "t1")
	if got := send(t, h, fields); got.status != 503 || got.placeholder("http.keycloak_cache_auth.reason") != string(outcomeResolverTimeout) {
		t.Fatalf("status %d for %q, want 503", got.status, got.placeholder("http.keycloak_cache_auth.reason"))
	}
	s.source.respond(nil)
	if got := send(t, h, fields); got.status != 0 {
		t.Errorf("the next request joined the one that hangs: status %d", got.status)
	}
}

// One resolver that answers says nothing of another that does not.
func TestEachResolverHasAStateOfItsOwn(t *testing.T) {
	s := newSite(t)
	second := newFakeSourceNamed(t, t.Name()+"/second")
	h, logs := load(t, s.config(func(h *Handler) { h.ResolversRaw = append(h.ResolversRaw, second.raw()) }))
	second.respond(func(context.Context, member.Query) (*member.Member, error) { return nil, errors.New("refused") })
	for range 5 {
		if got := send(t, h, bearer(s.token("dave"), "t1")); got.status != 503 {
			t.Fatalf("status %d, want 503", got.status)
		}
	}
	if lines := logs.FilterMessageSnippet("resolver").Len(); lines != 1 {
		t.Errorf("%d lines, want 1: %v", lines, logs.FilterMessageSnippet("resolver").All())
	}
}

func TestNextResolverIsAskedOnlyForUnknownUsers(t *testing.T) {
	s := newSite(t)
	second := newFakeSourceNamed(t, t.Name()+"/second")
	second.put(&member.Member{Tenant: "t1", KCID: s.users["dave"].ID, ID: "m-dave", Active: true})
	second.put(&member.Member{Tenant: "t1", KCID: s.users["alice"].ID, ID: "m-second", Active: true})
	h, _ := load(t, s.config(func(h *Handler) { h.ResolversRaw = append(h.ResolversRaw, second.raw()) }))

	if got := send(t, h, bearer(s.token("dave"), "t1")); got.request.Get("X-Member-ID") != "m-dave" {
		t.Errorf("a user the first one does not know: status %d, member %q", got.status, got.request.Get("X-Member-ID"))
	}
	s.source.respond(func(context.Context, member.Query) (*member.Member, error) { return nil, errors.New("refused") })
	if got := send(t, h, bearer(s.token("alice"), "t1")); got.status != 503 {
		t.Errorf("the first one failed, and the second was asked: status %d", got.status)
	}
}

// 1,000 requests for a member in no cache make one resolver call.
func TestConcurrentRequestsShareOneLookUp_CC001(t *testing.T) {
	const requests = 1000
	s := newSite(t)
	h, _ := load(t, s.config())
	fields := bearer(s.token("alice"), "t1")
	if got := send(t, h, bearer(s.token("bob"), "t1")); got.status != 0 { // the keys are there now
		t.Fatalf("status %d", got.status)
	}
	before := s.source.called()

	release, started := make(chan struct{}), make(chan struct{})
	var once sync.Once
	alice := &member.Member{Tenant: "t1", KCID: s.users["alice"].ID, ID: "m", Active: true}
	s.source.respond(func(context.Context, member.Query) (*member.Member, error) {
		once.Do(func() { close(started) })
		<-release
		return alice, nil
	})
	var admitted, arrived atomic.Int32
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			arrived.Add(1)
			if send(t, h, fields).status == 0 {
				admitted.Add(1)
			}
		})
	}
	<-started
	waitFor(t, "all requests to have arrived", func() bool { return arrived.Load() == requests })
	close(release)
	all.Wait()
	if admitted.Load() != requests {
		t.Errorf("%d of %d requests were admitted", admitted.Load(), requests)
	}
	if calls := s.source.called() - before; calls != 1 {
		t.Errorf("the resolver was called %d times, want 1", calls)
	}
}

// The first caller going away must not fail those who joined it.
func TestLookUpOutlivesItsFirstCaller_CC003_RS019(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	send(t, h, bearer(s.token("bob"), "t1")) // the keys are there now
	started, release := make(chan struct{}), make(chan struct{})
	alice := &member.Member{Tenant: "t1", KCID: s.users["alice"].ID, ID: "m", Active: true}
	var once sync.Once
	s.source.respond(func(ctx context.Context, _ member.Query) (*member.Member, error) {
		once.Do(func() { close(started) })
		select {
		case <-release:
			return alice, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	first := make(chan error, 1)
	request := func(ctx context.Context) error {
		r := httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx)
		r.Header = bearer(s.token("alice"), "t1")
		rec := httptest.NewRecorder()
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), rec, nil)
		return h.ServeHTTP(rec, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
	}
	go func() { first <- request(ctx) }()
	<-started
	second := make(chan error, 1)
	go func() { second <- request(context.Background()) }()
	cancel()
	var refusal caddyhttp.HandlerError
	if err := <-first; !errors.As(err, &refusal) || refusal.StatusCode != 499 {
		t.Errorf("the caller who left got %v, want 499", err)
	}
	close(release)
	if err := <-second; err != nil {
		t.Errorf("the caller who stayed got %v", err)
	}
	if calls := s.source.called(); calls != 2 { // bob's and alice's
		t.Errorf("the resolver was called %d times, want 2", calls)
	}
}

func TestMemberIsResolvedAgainAfterItsTTL(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) { h.TTL = caddy.Duration(time.Nanosecond) }))
	fields := bearer(s.token("alice"), "t1")
	send(t, h, fields)
	s.source.put(&member.Member{Tenant: "t1", KCID: s.users["alice"].ID, ID: "m-alice-1", Active: false})
	if got := send(t, h, fields); got.status != 403 {
		t.Errorf("a deactivated member's cached record was used beyond its ttl: status %d", got.status)
	}
}

// Two handlers share one store, and each applies its own ttl.
func TestReadersOwnTTLCounts(t *testing.T) {
	s := newSite(t)
	patient, _ := load(t, s.config())
	strict, _ := load(t, s.config(func(h *Handler) { h.TTL = caddy.Duration(time.Nanosecond) }))
	if patient.members.stores.common.memberStore != strict.members.stores.common.memberStore {
		t.Fatal("the handlers do not share their store")
	}
	fields := bearer(s.token("alice"), "t1")
	send(t, patient, fields)
	if from := send(t, patient, fields).placeholder("http.keycloak_cache_auth.cache"); from != "memory" {
		t.Errorf("the patient handler found the member in %q", from)
	}
	if from := send(t, strict, fields).placeholder("http.keycloak_cache_auth.cache"); from != "resolver" {
		t.Errorf("the strict handler found the member in %q", from)
	}
}

func TestMetrics(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	send(t, h, bearer(s.token("alice"), "t1"))
	send(t, h, bearer(s.token("alice"), "t1"))
	send(t, h, bearer("x.y.z", "t1"))
	send(t, h, http.Header{})
	for name, tc := range map[string]struct {
		counter prometheus.Collector
		want    float64
	}{
		"members":       {h.metrics.requests.WithLabelValues("member"), 2},
		"malformed":     {h.metrics.requests.WithLabelValues("token_malformed"), 1},
		"missing":       {h.metrics.requests.WithLabelValues("missing_token"), 1},
		"memory hits":   {h.metrics.lookups.WithLabelValues("memory", "hit"), 1},
		"memory misses": {h.metrics.lookups.WithLabelValues("memory", "miss"), 1},
	} {
		if got := testutil.ToFloat64(tc.counter); got != tc.want {
			t.Errorf("%s: counted %v, want %v", name, got, tc.want)
		}
	}
	if n := testutil.CollectAndCount(h.metrics.resolver); n != 1 {
		t.Errorf("%d series of resolver durations, want 1", n)
	}
	if n := testutil.CollectAndCount(h.metrics.keyFetches); n != 1 {
		t.Errorf("%d series of key fetches, want 1", n)
	}
}

// RL-009: two handlers of one configuration, and then a reload.
func TestMetricsOfTwoHandlersAndAReload(t *testing.T) {
	open := func(reg prometheus.Registerer) *metrics {
		t.Helper()
		m, err := newMetrics(reg)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	reg := prometheus.NewPedanticRegistry() // the kind Caddy makes for each configuration
	first, second := open(reg), open(reg)
	first.decided(outcomeMember)
	second.decided(outcomeMember)
	second.decided(outcomeNotAMember)
	if got := testutil.ToFloat64(first.requests.WithLabelValues("member")); got != 2 {
		t.Errorf("two handlers counted %v together, want 2", got)
	}
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
	reloaded := open(prometheus.NewPedanticRegistry())
	reloaded.decided(outcomeMember)
	if got := testutil.ToFloat64(reloaded.requests.WithLabelValues("member")); got != 1 {
		t.Errorf("counted %v after a reload, want 1", got)
	}
}

// waitFor waits until a condition holds.
func waitFor(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	deadline := time.After(time.Minute)
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for !holds() {
		select {
		case <-poll.C:
		case <-deadline:
			tb.Fatalf("waited in vain for %s", what)
		}
	}
}
