package keycloakcacheauth

import (
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// CL-023, CL-024, CL-025: requirements are looked at on each request, compared
// exactly, and not remembered with the token.
func TestRequirements(t *testing.T) {
	s := newSite(t)
	tok := s.token("alice", kctest.Claim("scope", "openid xwrite write2 read"), kctest.Claim("acr", "1"),
		kctest.Claim("groups", []string{"/staff/sales"}),
		kctest.Claim("resource_access", map[string]any{"shop": map[string]any{"roles": []string{"buyer"}}}))
	for name, tc := range map[string]struct {
		require   []Requirement
		want      int
		challenge string
	}{
		"nothing":                         {nil, 0, ""},
		"a scope it has":                  {[]Requirement{{Kind: "scope", AnyOf: []string{"read"}}}, 0, ""},
		"a scope inside another":          {[]Requirement{{Kind: "scope", AnyOf: []string{"write"}}}, 403, `, scope="write"`},
		"one of two scopes":               {[]Requirement{{Kind: "scope", AnyOf: []string{"write", "read"}}}, 0, ""},
		"two scopes":                      {[]Requirement{{Kind: "scope", AnyOf: []string{"read"}}, {Kind: "scope", AnyOf: []string{"write"}}}, 403, `, scope="read write"`},
		"a realm role it has":             {[]Requirement{{Kind: "realm_role", AnyOf: []string{"staff"}}}, 0, ""},
		"a realm role it lacks":           {[]Requirement{{Kind: "realm_role", AnyOf: []string{"admin"}}}, 403, ""},
		"a realm role of its client":      {[]Requirement{{Kind: "realm_role", AnyOf: []string{"buyer"}}}, 403, ""},
		"a client role it has":            {[]Requirement{{Kind: "client_role", Client: "shop", AnyOf: []string{"buyer"}}}, 0, ""},
		"a client role of another client": {[]Requirement{{Kind: "client_role", Client: "blog", AnyOf: []string{"buyer"}}}, 403, ""},
		"a group it is in":                {[]Requirement{{Kind: "group", AnyOf: []string{"/staff/sales"}}}, 0, ""},
		"a group above that":              {[]Requirement{{Kind: "group", AnyOf: []string{"/staff"}}}, 403, ""},
		"an acr it has":                   {[]Requirement{{Kind: "acr", AnyOf: []string{"1", "2"}}}, 0, ""},
		"an acr it lacks":                 {[]Requirement{{Kind: "acr", AnyOf: []string{"2"}}}, 403, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := load(t, s.config(func(h *Handler) { h.Require = tc.require }))
			for range 2 { // the token is seen by the second time
				got := send(t, h, bearer(tok, "t1"))
				if got.status != tc.want {
					t.Errorf("status %d, want %d", got.status, tc.want)
				}
				if tc.want == 0 {
					continue
				}
				if challenge, want := got.response.Get("WWW-Authenticate"), `Bearer error="insufficient_scope"`+tc.challenge; challenge != want {
					t.Errorf("challenge %q, want %q", challenge, want)
				}
			}
		})
	}
}

func TestTokenPolicy(t *testing.T) {
	s := newSite(t)
	tok := s.token("alice")
	long := s.token("alice", kctest.Claim("exp", time.Now().Add(25*time.Hour).Unix()))
	for name, tc := range map[string]struct {
		edit  func(*Handler)
		token string
		want  outcome
	}{
		"CL-020 azp not allowed":       {func(h *Handler) { h.AuthorizedParties = []string{"other"} }, tok, "azp_not_allowed"},
		"azp allowed":                  {func(h *Handler) { h.AuthorizedParties = []string{"other", "app"} }, tok, outcomeMember},
		"too long a life":              {func(*Handler) {}, long, "lifetime_too_long"},
		"a long life that is allowed":  {func(h *Handler) { h.MaxTokenLifetime = caddy.Duration(48 * time.Hour) }, long, outcomeMember},
		"an algorithm not in the list": {func(h *Handler) { h.Algorithms = []string{"ES256"} }, tok, "alg_not_allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			lax, _ := load(t, s.config(func(h *Handler) { h.MaxTokenLifetime = caddy.Duration(48 * time.Hour) }))
			if got := send(t, lax, bearer(tc.token, "t1")); got.status != 0 { // so that the token is seen
				t.Fatalf("the lax handler: status %d", got.status)
			}
			h, _ := load(t, s.config(tc.edit))
			got := send(t, h, bearer(tc.token, "t1"))
			if reason := got.placeholder("http.keycloak_cache_auth.reason"); reason != string(tc.want) {
				t.Errorf("reason %q, want %q", reason, tc.want)
			}
		})
	}
}

// A key that the realm has withdrawn ends tokens that were verified before.
func TestSeenTokenEndsWithItsKey(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	old := s.realm.ActiveKey("RS256")
	tok := s.token("alice")
	if got := send(t, h, bearer(tok, "t1")); got.status != 0 {
		t.Fatalf("status %d", got.status)
	}
	s.realm.Rotate("RS256")
	s.realm.Disable(old)
	if got := send(t, h, bearer(s.token("bob"), "t1")); got.status != 0 { // has the new key fetched
		t.Fatalf("a token of the new key: status %d", got.status)
	}
	got := send(t, h, bearer(tok, "t1"))
	if reason := got.placeholder("http.keycloak_cache_auth.reason"); got.status != 401 || reason != "unknown_key" {
		t.Errorf("status %d for %q, want 401 for unknown_key", got.status, reason)
	}
}

func TestSeveralIssuers(t *testing.T) {
	s := newSite(t)
	beta := s.server.Realm("beta")
	erin := beta.AddUser(kctest.User{ID: s.users["alice"].ID, Username: "erin"}) // the same sub, another person
	betaToken := beta.AccessToken(erin, kctest.Claim("aud", audience))
	h, _ := load(t, s.config(func(h *Handler) {
		h.Issuers = []*Issuer{{URL: s.realm.Issuer(), Tenants: []string{"t1"}}, {URL: beta.Issuer(), Tenants: []string{"t2"}}}
	}))
	for name, tc := range map[string]struct {
		token, tenant string
		want          outcome
	}{
		"the first one's tenant":                      {s.token("alice"), "t1", outcomeMember},
		"the second one's tenant":                     {betaToken, "t2", outcomeMember},
		"CL-015 the second one's token, other tenant": {betaToken, "t1", outcomeTenantMismatch},
		"the first one's token, other tenant":         {s.token("alice"), "t2", outcomeTenantMismatch},
		"a third issuer":                              {s.server.Realm("gamma").AccessToken(erin, kctest.Claim("aud", audience)), "t1", "issuer_mismatch"},
	} {
		t.Run(name, func(t *testing.T) {
			got := send(t, h, bearer(tc.token, tc.tenant))
			if reason := got.placeholder("http.keycloak_cache_auth.reason"); reason != string(tc.want) {
				t.Errorf("status %d for %q, want %q", got.status, reason, tc.want)
			}
		})
	}
	if calls := s.source.called(); calls != 2 {
		t.Errorf("the resolver was asked %d times, want 2: not for tokens of another tenant", calls)
	}
}

func TestOneRealmPerTenant(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) {
		h.Issuers = []*Issuer{{URL: s.server.URL() + "/realms/{tenant}"}}
	}))
	tokens := make(map[string]string)
	for _, tenant := range []string{"t1", "t2"} {
		realm := s.server.Realm(tenant)
		user := realm.AddUser(kctest.User{Username: "alice"})
		s.source.put(&member.Member{Tenant: tenant, KCID: user.ID, ID: "m-" + tenant, Active: true})
		tokens[tenant] = realm.AccessToken(user, kctest.Claim("aud", audience))
	}
	for _, tc := range []struct {
		realm, tenant string
		want          outcome
	}{
		{"t1", "t1", outcomeMember},
		{"t2", "t2", outcomeMember},
		{"t1", "t2", outcomeTenantMismatch},
		{"t2", "t1", outcomeTenantMismatch},
	} {
		got := send(t, h, bearer(tokens[tc.realm], tc.tenant))
		if reason := got.placeholder("http.keycloak_cache_auth.reason"); reason != string(tc.want) {
			t.Errorf("a token of realm %s for tenant %s: status %d for %q, want %q", tc.realm, tc.tenant, got.status, reason, tc.want)
		}
	}
}

// The token itself must name the tenant.
func TestTenantClaim(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) { h.TenantClaim = "organization" }))
	for name, tc := range map[string]struct {
		option kctest.Option
		want   outcome
	}{
		"a list":                {kctest.Claim("organization", []string{"t1", "t9"}), outcomeMember},
		"a map":                 {kctest.Claim("organization", map[string]any{"t1": map[string]any{"id": "x"}}), outcomeMember},
		"CL-028 a text":         {kctest.Claim("organization", "t1"), outcomeMember},
		"TN-014 another tenant": {kctest.Claim("organization", []string{"t2"}), outcomeTenantMismatch},
		"another case":          {kctest.Claim("organization", []string{"T1"}), outcomeTenantMismatch},
		"a part of the name":    {kctest.Claim("organization", "t1x"), outcomeTenantMismatch},
		"an empty list":         {kctest.Claim("organization", []string{}), outcomeTenantMismatch},
		"an empty map":          {kctest.Claim("organization", map[string]any{}), outcomeTenantMismatch},
		"no such claim at all":  {kctest.Without("organization"), outcomeTenantMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			got := send(t, h, bearer(s.token("alice", tc.option), "t1"))
			if reason := got.placeholder("http.keycloak_cache_auth.reason"); reason != string(tc.want) {
				t.Errorf("reason %q, want %q", reason, tc.want)
			}
		})
	}
}

func TestMistakesAreToldOncePerMinute(t *testing.T) {
	s := newSite(t)
	h, logs := load(t, s.config())
	now := time.Now()
	h.mistakes.logger, h.mistakes.now = h.logger, func() time.Time { return now }
	wrong := bearer(s.token("alice", kctest.Claim("aud", "account")), "t1")
	told := func() int { return logs.FilterMessageSnippet("often a mistake").Len() }
	for range 5 {
		send(t, h, wrong)
	}
	if told() != 1 {
		t.Fatalf("%d lines, want 1", told())
	}
	line := logs.FilterMessageSnippet("often a mistake").All()[0].ContextMap()
	if hint, _ := line["hint"].(string); !strings.Contains(hint, `"account"`) || !strings.Contains(hint, `"shop"`) || !strings.Contains(hint, "Audience mapper") {
		t.Errorf("the hint does not say what came and what to do: %v", line)
	}
	now = now.Add(mistakeInterval)
	send(t, h, wrong)
	if told() != 2 {
		t.Errorf("%d lines a minute later, want 2", told())
	}
}
