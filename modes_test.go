package keycloakcacheauth

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func reportOnly(h *Handler) { h.ReportOnly = true }

// Whatever is decided under report_only, the request goes on and nothing is
// added to the response; what would have been refused gets no identity and
// keeps the tenant header as it came.
func TestReportOnlyRefusesNobody(t *testing.T) {
	s := newSite(t)
	h, logs := load(t, s.config(reportOnly, func(h *Handler) { h.DPoP = &DPoP{Mode: dpopAccepted, Nonce: true} }))
	for name, tc := range map[string]struct {
		fields http.Header
		reason outcome
	}{
		"no credential":           {http.Header{"X-Tenant-Id": {"t1"}}, outcomeMissingToken},
		"a bad token":             {bearer("x.y.z", "t1"), "token_malformed"},
		"two credentials":         {http.Header{"Authorization": {"Bearer a", "Bearer b"}, "X-Tenant-Id": {"t1"}}, outcomeMultipleCredentials},
		"a member of nothing":     {bearer(s.token("dave"), "t1"), outcomeNotAMember},
		"an inactive member":      {bearer(s.token("carol"), "t1"), outcomeMemberInactive},
		"two tenants":             {http.Header{"Authorization": {"Bearer " + s.token("alice")}, "X-Tenant-Id": {"t1", "t2"}}, outcomeTenantInvalid},
		"a malformed tenant":      {bearer(s.token("alice"), "t:1"), outcomeTenantInvalid},
		"no tenant":               {http.Header{"Authorization": {"Bearer " + s.token("alice")}}, outcomeTenantMissing},
		"a proof without nonce":   {http.Header{"Authorization": {"DPoP " + s.token("alice")}, "X-Tenant-Id": {"t1"}}, outcomeNotBound},
		"placeholder-like tenant": {bearer(s.token("alice"), "{env.PATH}"), outcomeTenantInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			sent := tc.fields["X-Tenant-Id"]
			fields := tc.fields.Clone()
			for _, owned := range defaultOwned {
				if owned != headerTenantID {
					fields[owned] = []string{"forged"}
				}
			}
			fields["X_tenant_id"] = []string{"forged"}
			before := testutil.ToFloat64(h.metrics.reports.WithLabelValues(string(tc.reason)))
			refused := testutil.ToFloat64(h.metrics.requests.WithLabelValues(string(tc.reason)))

			got := send(t, h, fields)
			if got.status != 0 {
				t.Fatalf("status %d", got.status)
			}
			if len(got.response) > 0 {
				t.Errorf("the response has %v", got.response)
			}
			if kept := got.request["X-Tenant-Id"]; strings.Join(kept, "|") != strings.Join(sent, "|") {
				t.Errorf("the tenant header is %q, and was %q", kept, sent)
			}
			for name, values := range got.request {
				if strings.HasPrefix(name, "X") && name != "X-Tenant-Id" {
					t.Errorf("%s: %q went on", name, values)
				}
			}
			if auth := got.request["Authorization"]; strings.Join(auth, "|") != strings.Join(tc.fields["Authorization"], "|") {
				t.Errorf("Authorization is %q", auth)
			}
			if reason := got.placeholder("http.keycloak_cache_auth.reason"); reason != string(tc.reason) {
				t.Errorf("reason %q, want %q", reason, tc.reason)
			}
			for _, name := range []string{"id", "tenant", "member_id", "anonymous"} {
				if value := got.placeholder("http.auth.user." + name); value != "" {
					t.Errorf("{http.auth.user.%s} is %q", name, value)
				}
			}
			if after := testutil.ToFloat64(h.metrics.reports.WithLabelValues(string(tc.reason))); after != before+1 {
				t.Errorf("%g reports were counted, want %g", after, before+1)
			}
			if after := testutil.ToFloat64(h.metrics.requests.WithLabelValues(string(tc.reason))); after != refused {
				t.Error("it was counted as a refusal")
			}
		})
	}
	for _, line := range logs.FilterMessage("request would have been refused").All() {
		if text := line.ContextMap(); line.Level != zapcore.InfoLevel || text["reason"] == nil {
			t.Errorf("%s: %v", line.Level, text)
		}
	}
}

// Above DEBUG, a report names nobody.
func TestReportsNameNobodyAboveDebug(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(reportOnly))
	core, logs := observer.New(zapcore.InfoLevel)
	h.logger = zap.New(core)
	send(t, h, bearer(s.token("dave"), "t1"))
	lines := logs.FilterMessage("request would have been refused").All()
	if len(lines) != 1 || len(lines[0].Context) != 1 || lines[0].ContextMap()["reason"] != "not_a_member" {
		t.Errorf("the log has %v", lines)
	}
}

func TestReportOnlyAdmitsAsUsual(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(reportOnly, func(h *Handler) { h.Optional = true }))
	got := send(t, h, bearer(s.token("alice"), "t1"))
	if got.request.Get("X-Member-Id") != "m-alice-1" || got.request.Get("X-Auth-Status") != "member" || got.request.Get("X-Tenant-Id") != "t1" {
		t.Errorf("a member's request carries %v", got.request)
	}
	if got.request.Get("Authorization") == "" {
		t.Error("the token did not go on")
	}
	// its upstream may know the user by something else than a token
	got = send(t, h, http.Header{"X-Tenant-Id": {"t1"}, "Cookie": {"session=1"}})
	if got.request.Get("X-Auth-Status") != "anonymous" || got.request.Get("X-Tenant-Id") != "t1" || got.request.Get("X-Member-Id") != "" {
		t.Errorf("an anonymous request carries %v", got.request)
	}
	if n := testutil.ToFloat64(h.metrics.requests.WithLabelValues("member")); n != 1 {
		t.Errorf("%g members were counted", n)
	}
}

// A second handler that does refuse sees what the first one saw.
func TestReportOnlyInFrontOfAHandlerThatRefuses(t *testing.T) {
	s := newSite(t)
	trial, _ := load(t, s.config(reportOnly, func(h *Handler) { h.Audiences = []string{"elsewhere"} }))
	strict, _ := load(t, s.config())
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = bearer(s.token("alice"), "t1")
	if got := sendRequest(t, chain{trial, strict}, r); got.status != 0 || got.request.Get("X-Member-Id") != "m-alice-1" {
		t.Errorf("status %d, headers %v", got.status, got.request)
	}
}

// Nothing that a resolver does, or Keycloak does not, holds a request up for
// longer than `timeout`, or ends it.
func TestReportOnlyOutlivesItsDependencies(t *testing.T) {
	for name, tc := range map[string]struct {
		uncached bool
		answer   func(released <-chan struct{}) (*member.Member, error)
		reason   outcome
	}{
		"a resolver that panics":               {false, func(<-chan struct{}) (*member.Member, error) { panic("oh") }, outcomeResolverError},
		"one that is not cached and panics":    {true, func(<-chan struct{}) (*member.Member, error) { panic("oh") }, outcomeResolverError},
		"a resolver that fails":                {false, func(<-chan struct{}) (*member.Member, error) { return nil, errors.New("down") }, outcomeResolverError},
		"a resolver that ignores its deadline": {false, func(released <-chan struct{}) (*member.Member, error) { <-released; return nil, member.ErrUnknown }, outcomeResolverTimeout},
		"one that is not cached and does so":   {true, func(released <-chan struct{}) (*member.Member, error) { <-released; return nil, member.ErrUnknown }, outcomeResolverTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.source.uncached = tc.uncached
			released := make(chan struct{})
			t.Cleanup(func() { close(released) })
			s.source.respond(func(context.Context, member.Query) (*member.Member, error) { return tc.answer(released) })
			h, _ := load(t, s.config(reportOnly, func(h *Handler) { h.Timeout = caddy.Duration(50 * time.Millisecond) }))
			got := send(t, h, bearer(s.token("alice"), "t1"))
			if reason := got.placeholder("http.keycloak_cache_auth.reason"); got.status != 0 || reason != string(tc.reason) {
				t.Errorf("status %d, reason %q, want none and %q", got.status, reason, tc.reason)
			}
		})
	}
	t.Run("a Redis that does not answer", func(t *testing.T) {
		server := servers.Redis(t)
		s := newSite(t)
		h, _ := load(t, s.config(reportOnly, func(h *Handler) {
			h.Timeout = caddy.Duration(500 * time.Millisecond)
			h.Stores = []*Store{{URL: server.URL(), Timeout: caddy.Duration(maxRedisTimeout), MaxBlind: caddy.Duration(time.Hour)}}
		}))
		eventually(t, "a member in Redis", func() bool {
			flushAll(t, h)
			send(t, h, bearer(s.token("alice"), "t1"))
			return testutil.ToFloat64(h.metrics.lookups.WithLabelValues("redis", "miss")) > 0
		})
		server.Stop(t)
		t.Cleanup(func() { server.Cont(t) })
		goesOn(t, h, bearer(s.token("bob"), "t1"), outcomeResolverTimeout, 5*time.Second) // reading Redis may take 10s
	})
	t.Run("a Keycloak that does not answer", func(t *testing.T) {
		released := make(chan struct{})
		silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-released }))
		t.Cleanup(func() { close(released); silent.Close() })
		s := newSite(t)
		h, _ := load(t, s.config(reportOnly, func(h *Handler) {
			h.Timeout = caddy.Duration(50 * time.Millisecond)
			h.Issuers[0].JWKSURL = silent.URL
		}))
		goesOn(t, h, bearer(s.token("alice"), "t1"), outcomeKeysUnavailable, 4*time.Second) // fetching keys may take 5s
	})
}

// goesOn sends a request that has to be let through for a reason, and within a time.
func goesOn(t *testing.T, h *Handler, fields http.Header, want outcome, within time.Duration) {
	t.Helper()
	started := time.Now()
	got := send(t, h, fields)
	if reason := got.placeholder("http.keycloak_cache_auth.reason"); got.status != 0 || reason != string(want) {
		t.Errorf("status %d, reason %q", got.status, reason)
	}
	if took := time.Since(started); took > within {
		t.Errorf("the request waited for %s", took)
	}
}

// The paths that are the module's own are served under report_only, too.
func TestReportOnlyServesItsOwnPaths(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(reportOnly, func(h *Handler) { h.LogoutPath = "/logout" }))
	r := httptest.NewRequest(http.MethodGet, "/logout", nil)
	if got := sendRequest(t, h, r); got.status != http.StatusMethodNotAllowed {
		t.Errorf("status %d", got.status)
	}
}

// TN-013, TN-014 with hide_tenants: whoever may not use a tenant is told
// the same, whether there is such a tenant or not.
func TestHiddenTenantsAreAllAlike(t *testing.T) {
	s := newSite(t)
	config := func(hide bool) Handler {
		return s.config(func(h *Handler) {
			h.HideTenants = hide
			h.TenantHeader, h.Tenant = "", "{http.request.header.X-Org}"
			h.TenantAliases = map[string]string{"one": "t1", "two": "t2", "three": "t3", "four": "t4"}
			h.Issuers[0].Tenants = []string{"t1", "t2", "t3", "t4"}
			h.TenantClaim = "org"
		})
	}
	hidden, _ := load(t, config(true))
	plain, _ := load(t, config(false))
	s.source.put(&member.Member{Tenant: "t3", KCID: "somebody else", ID: "x", Active: true})
	s.source.respond(nil)
	request := func(user, org string, claims ...string) http.Header {
		return http.Header{"Authorization": {"Bearer " + s.token(user, kctest.Claim("org", claims))}, "X-Org": {org}}
	}
	var first *answered
	for name, tc := range map[string]struct {
		fields http.Header
		reason outcome
	}{
		"TN-013 a tenant that is not listed": {request("alice", "nope", "t1"), outcomeTenantUnknown},
		"TN-014 not the token's":             {request("alice", "two", "t1"), outcomeTenantMismatch},
		"TN-001 not a member":                {request("bob", "two", "t2"), outcomeNotAMember},
		"not an active member":               {request("carol", "one", "t1"), outcomeMemberInactive},
		"a record of somebody else":          {request("dave", "four", "t4"), outcomeKCIDMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.reason == outcomeKCIDMismatch {
				s.source.respond(func(context.Context, member.Query) (*member.Member, error) {
					return &member.Member{Tenant: "t4", KCID: "another", ID: "x", Active: true}, nil
				})
				defer s.source.respond(nil)
			}
			for range 2 { // looked up, and remembered
				got := send(t, hidden, tc.fields)
				if got.status != http.StatusNotFound || got.placeholder("http.keycloak_cache_auth.reason") != string(tc.reason) {
					t.Fatalf("status %d, reason %q, want 404 and %q", got.status, got.placeholder("http.keycloak_cache_auth.reason"), tc.reason)
				}
				if first == nil {
					first = &got
				}
				if got.message() != first.message() || !sameHeader(got.response, first.response) {
					t.Errorf("%q and %v, another was answered %q and %v", got.message(), got.response, first.message(), first.response)
				}
			}
			if got := send(t, plain, tc.fields); got.status != http.StatusForbidden {
				t.Errorf("without hide_tenants the status is %d", got.status)
			}
		})
	}
	if got := send(t, hidden, request("alice", "one", "t1")); got.status != 0 {
		t.Errorf("a member gets %d", got.status)
	}
	if got := send(t, hidden, http.Header{"X-Org": {"one"}}); got.status != http.StatusUnauthorized {
		t.Errorf("without a token the status is %d", got.status)
	}
}

func (a answered) message() string {
	var refusal caddyhttp.HandlerError
	if errors.As(a.err, &refusal) && refusal.Err != nil {
		return refusal.Err.Error()
	}
	return ""
}

func sameHeader(a, b http.Header) bool {
	if len(a) != len(b) {
		return false
	}
	for name := range a {
		if strings.Join(a[name], "\n") != strings.Join(b[name], "\n") {
			return false
		}
	}
	return true
}

// A resolver that can tell that there is no such tenant is believed if all
// others can, too; what operators see of it is remembered like the rest.
func TestUnknownTenants(t *testing.T) {
	for name, tc := range map[string]struct {
		second error
		want   outcome
	}{
		"one resolver says so":               {nil, outcomeTenantUnknown},
		"both say so":                        {member.ErrUnknownTenant, outcomeTenantUnknown},
		"the other knows only of the member": {member.ErrUnknown, outcomeNotAMember},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.source.respond(func(context.Context, member.Query) (*member.Member, error) { return nil, member.ErrUnknownTenant })
			config := s.config()
			if tc.second != nil {
				second := newFakeSourceNamed(t, t.Name()+" second")
				second.respond(func(context.Context, member.Query) (*member.Member, error) { return nil, tc.second })
				config.ResolversRaw = append(config.ResolversRaw, second.raw())
			}
			h, _ := load(t, config)
			for range 2 {
				got := send(t, h, bearer(s.token("alice"), "t9"))
				if got.status != http.StatusForbidden || got.placeholder("http.keycloak_cache_auth.reason") != string(tc.want) {
					t.Errorf("status %d, reason %q, want 403 and %q", got.status, got.placeholder("http.keycloak_cache_auth.reason"), tc.want)
				}
			}
			if n := s.source.called(); n != 1 {
				t.Errorf("the resolver was asked %d times", n)
			}
		})
	}
}
