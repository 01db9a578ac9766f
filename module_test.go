package keycloakcacheauth

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

const (
	bareChallenge           = `Bearer`
	invalidRequestChallenge = `Bearer error="invalid_request"`
	invalidTokenChallenge   = `Bearer error="invalid_token"`
)

// One request each, as the table of answers has them.
func TestServeHTTP(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	other := s.server.Realm("other")

	for name, tc := range map[string]struct {
		fields     http.Header
		wantStatus int // 0: admitted
		challenge  string
		reason     outcome
	}{
		"HS-001 no credential":        {http.Header{"X-Tenant-Id": {"t1"}}, 401, bareChallenge, outcomeMissingToken},
		"HS-002 another scheme":       {http.Header{"Authorization": {"Basic YTpi"}, "X-Tenant-Id": {"t1"}}, 401, bareChallenge, outcomeMissingToken},
		"HS-003 mixed-case scheme":    {http.Header{"Authorization": {"bEaReR " + s.token("alice")}, "X-Tenant-Id": {"t1"}}, 0, "", outcomeMember},
		"HS-004 scheme without token": {http.Header{"Authorization": {"Bearer"}, "X-Tenant-Id": {"t1"}}, 400, invalidRequestChallenge, outcomeMalformedAuthorization},
		"HS-006 two credentials":      {http.Header{"Authorization": {"Bearer " + s.token("alice"), "Bearer x"}, "X-Tenant-Id": {"t1"}}, 400, invalidRequestChallenge, outcomeMultipleCredentials},
		"PP-004 DPoP":                 {http.Header{"Authorization": {"DPoP " + s.token("alice")}, "X-Tenant-Id": {"t1"}}, 401, bareChallenge, outcomeMissingToken},

		"garbage":                            {bearer("x.y.z", "t1"), 401, invalidTokenChallenge, "token_malformed"},
		"HS-015 one megabyte":                {bearer(strings.Repeat(".", 1<<20), "t1"), 401, invalidTokenChallenge, "token_too_large"},
		"expired":                            {bearer(s.token("alice", kctest.IssuedAt(time.Now().Add(-time.Hour))), "t1"), 401, invalidTokenChallenge, "expired"},
		"CL-016 another service's":           {bearer(s.token("alice", kctest.Claim("aud", "account")), "t1"), 401, invalidTokenChallenge, "audience_mismatch"},
		"CL-017 no audience":                 {bearer(s.token("alice", kctest.Without("aud")), "t1"), 401, invalidTokenChallenge, "audience_mismatch"},
		"CL-001 an ID token":                 {bearer(s.realm.IDToken(s.users["alice"], kctest.Claim("aud", audience)), "t1"), 401, invalidTokenChallenge, "wrong_token_type"},
		"AK-005 a refresh token":             {bearer(s.realm.RefreshToken(s.users["alice"]), "t1"), 401, invalidTokenChallenge, "alg_not_allowed"},
		"AK-018 another realm's":             {bearer(other.AccessToken(s.users["alice"], kctest.Claim("aud", audience)), "t1"), 401, invalidTokenChallenge, "issuer_mismatch"},
		"AK-019 another realm's key":         {bearer(s.token("alice", kctest.SignedBy(other.ActiveKey("RS256").WithID(s.realm.ActiveKey("RS256").ID))), "t1"), 401, invalidTokenChallenge, "bad_signature"},
		"CL-009 no subject":                  {bearer(s.token("alice", kctest.Without("sub")), "t1"), 401, invalidTokenChallenge, "missing_claim"},
		"PP-001 bound to a key":              {bearer(s.token("alice", kctest.Claim("cnf", map[string]any{"jkt": "x"})), "t1"), 401, invalidTokenChallenge, "cnf_unsupported"},
		"two subjects, one in capitals":      {bearer(s.token("bob", kctest.Claim("SUB", s.users["alice"].ID)), "t1"), 401, invalidTokenChallenge, "claim_ambiguous"},
		"bad token and bad tenant":           {bearer("x.y.z", "t:1"), 401, invalidTokenChallenge, "token_malformed"},
		"TN-002 no tenant":                   {http.Header{"Authorization": {"Bearer " + s.token("alice")}}, 400, "", outcomeTenantMissing},
		"TN-003 two tenants":                 {http.Header{"Authorization": {"Bearer " + s.token("alice")}, "X-Tenant-Id": {"t1", "t2"}}, 400, "", outcomeTenantInvalid},
		"TN-007 a tenant with separators":    {bearer(s.token("alice"), "t1:user:A"), 400, "", outcomeTenantInvalid},
		"TN-020 a tenant like a placeholder": {bearer(s.token("alice"), "{env.PATH}"), 400, "", outcomeTenantInvalid},

		"a member":                      {bearer(s.token("alice"), "t1"), 0, "", outcomeMember},
		"a member, other algorithm":     {bearer(s.token("alice", kctest.Algorithm("ES256")), "t1"), 0, "", outcomeMember},
		"TN-001 of another tenant":      {bearer(s.token("bob"), "t2"), 403, "", outcomeNotAMember},
		"TN-011 tenant in another case": {bearer(s.token("alice"), "T1"), 403, "", outcomeNotAMember},
		"TN-013 an unknown tenant":      {bearer(s.token("alice"), "t-nope"), 403, "", outcomeNotAMember},
		"RS-010 inactive":               {bearer(s.token("carol"), "t1"), 403, "", outcomeMemberInactive},
		"member of nothing":             {bearer(s.token("dave"), "t1"), 403, "", outcomeNotAMember},
	} {
		t.Run(name, func(t *testing.T) {
			got := send(t, h, tc.fields)
			if got.status != tc.wantStatus {
				t.Errorf("status %d, want %d (reason %q)", got.status, tc.wantStatus, got.placeholder("http.keycloak_cache_auth.reason"))
			}
			if challenge := got.response.Get("WWW-Authenticate"); challenge != tc.challenge {
				t.Errorf("challenge %q, want %q", challenge, tc.challenge)
			}
			if reason := got.placeholder("http.keycloak_cache_auth.reason"); reason != string(tc.reason) {
				t.Errorf("reason %q, want %q", reason, tc.reason)
			}
			if tc.wantStatus != 0 {
				for _, name := range []string{"id", "tenant", "member_id", "username", "member.plan", "claims.sub", "anonymous"} {
					if value := got.placeholder("http.auth.user." + name); value != "" {
						t.Errorf("a refused request has {http.auth.user.%s} = %q", name, value)
					}
				}
			}
		})
	}
}

func TestIdentityOfAMember_SP014(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	alice := s.users["alice"].ID
	got := send(t, h, bearer(s.token("alice"), "t1"))

	for name, want := range map[string]string{
		"X-User-Id": alice, "X-User-Name": "alice", "X-User-Email": "alice@example.com",
		"X-User-Roles": "editor,viewer", "X-Tenant-Id": "t1", "X-Member-Id": "m-alice-1", "X-Auth-Status": "member",
	} {
		if values := got.request[name]; !slices.Equal(values, []string{want}) {
			t.Errorf("%s is %q, want %q", name, values, want)
		}
	}
	if got.request.Get("Authorization") == "" {
		t.Error("the token was not passed on")
	}
	for name, want := range map[string]string{
		"http.auth.user.id": alice, "http.auth.user.tenant": "t1", "http.auth.user.member_id": "m-alice-1",
		"http.auth.user.username": "alice", "http.auth.user.email": "alice@example.com",
		"http.auth.user.email_unverified": "alice@example.com", "http.auth.user.name": "alice Example",
		"http.auth.user.roles": "editor,viewer", "http.auth.user.member.plan": "gold",
		"http.auth.user.scope": "openid email profile", "http.auth.user.anonymous": "false",
		"http.auth.user.claims.azp": "app", "http.auth.user.claims.realm_access.roles.3": "staff",
		"http.auth.user.member.unknown": "", "http.auth.user.claims.unknown": "", "http.auth.user.no_such": "",
		"http.keycloak_cache_auth.cache": "resolver", "http.keycloak_cache_auth.age": "0",
		"http.keycloak_cache_auth.requested_tenant": "t1",
	} {
		value, known := got.repl.GetString(name)
		if !known || value != want {
			t.Errorf("{%s} is %q (known: %t), want %q", name, value, known, want)
		}
	}
	if len(got.response) != 0 {
		t.Errorf("the response got header fields: %v", got.response)
	}
}

func TestUnverifiedEmailIsNotSent(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	got := send(t, h, bearer(s.token("alice", kctest.Claim("email_verified", false)), "t1"))
	if values, sent := got.request["X-User-Email"]; sent {
		t.Errorf("X-User-Email is %q", values)
	}
	if email := got.placeholder("http.auth.user.email"); email != "" {
		t.Errorf("{http.auth.user.email} is %q", email)
	}
	if email := got.placeholder("http.auth.user.email_unverified"); email != "alice@example.com" {
		t.Errorf("{http.auth.user.email_unverified} is %q", email)
	}
}

// What the client sends under our names is gone, also
// where we have nothing to put in its place.
func TestForgedHeadersAreReplaced(t *testing.T) {
	s := newSite(t)
	s.source.put(&member.Member{Tenant: "t1", KCID: s.users["dave"].ID, ID: "m-dave", Active: true}) // no roles
	forged := func(fields http.Header) http.Header {
		for _, name := range defaultOwned {
			if name != headerTenantID {
				fields[name] = []string{"forged"}
				fields[strings.ReplaceAll(name, "-", "_")] = []string{"forged"}
			}
		}
		fields["Connection"] = []string{"close, X-User-Id, X-Tenant-Id"}
		return fields
	}
	for name, tc := range map[string]struct {
		config Handler
		fields http.Header
		want   int
	}{
		"SP-001, TN-018 a member": {s.config(), bearer(s.token("dave"), "t1"), 0},
		"SP-002 anonymous":        {s.config(func(h *Handler) { h.Optional = true }), http.Header{"X-Tenant-Id": {"t1"}}, 0},
		"headers turned off":      {s.config(func(h *Handler) { h.HeadersOff = true }), bearer(s.token("dave"), "t1"), 0},
		"headers of one's own":    {s.config(func(h *Handler) { h.Headers = []Header{{"X-Who", "{http.auth.user.id}"}} }), bearer(s.token("dave"), "t1"), 0},
		"strip_only":              {Handler{StripOnly: true}, http.Header{"X-Tenant-Id": {"t1"}}, 0},
		"preflight":               {s.config(func(h *Handler) { h.Preflight = "pass" }), http.Header{"Origin": {"https://x"}, "Access-Control-Request-Method": {"GET"}}, 0},
		"a refused request too":   {s.config(), http.Header{"X-Tenant-Id": {"t1"}}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := load(t, tc.config)
			r := httptest.NewRequest(http.MethodOptions, "/", nil)
			r.Header = forged(tc.fields.Clone())
			got := sendRequest(t, h, r)
			if got.status != tc.want {
				t.Fatalf("status %d, want %d", got.status, tc.want)
			}
			seen := got.request
			if tc.want != 0 {
				seen = r.Header // error routes get this one
			}
			for name, values := range seen {
				if slices.Contains(values, "forged") {
					t.Errorf("%s: %q went on", name, values)
				}
			}
			if c := seen.Get("Connection"); c != "close" {
				t.Errorf("Connection is %q, want close", c)
			}
		})
	}
}

func TestOptional(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) { h.Optional = true }))
	for name, tc := range map[string]struct {
		fields http.Header
		want   int
	}{
		"no credential":                          {http.Header{"X-Tenant-Id": {"t1"}}, 0},
		"no credential and no tenant":            {http.Header{}, 0},
		"no credential and a bad tenant":         {http.Header{"X-Tenant-Id": {"t:1"}}, 0},
		"another scheme":                         {http.Header{"Authorization": {"Basic YTpi"}}, 0},
		"HS-021 a bad token is refused":          {bearer("x.y.z", "t1"), 401},
		"a token of nobody's member":             {bearer(s.token("dave"), "t1"), 403},
		"a DPoP token is no anonymous":           {http.Header{"Authorization": {"DPoP " + s.token("alice")}}, 401},
		"a malformed credential is no anonymous": {http.Header{"Authorization": {"Bearer"}}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			got := send(t, h, tc.fields)
			if got.status != tc.want {
				t.Fatalf("status %d, want %d", got.status, tc.want)
			}
			if tc.want != 0 {
				return
			}
			for name := range got.request {
				if strings.HasPrefix(name, "X-") && name != headerAuthStatus {
					t.Errorf("an anonymous request carries %s: %q", name, got.request[name])
				}
			}
			if status := got.request.Get("X-Auth-Status"); status != "anonymous" {
				t.Errorf("X-Auth-Status is %q", status)
			}
			if a := got.placeholder("http.auth.user.anonymous"); a != "true" {
				t.Errorf("{http.auth.user.anonymous} is %q", a)
			}
			for _, name := range []string{"id", "tenant", "member_id", "roles"} {
				if value, known := got.repl.GetString("http.auth.user." + name); value != "" || !known {
					t.Errorf("{http.auth.user.%s} is %q (known: %t), want it known and empty", name, value, known)
				}
			}
		})
	}
	if got := send(t, h, http.Header{"X-Tenant-Id": {"t1"}}); got.placeholder("http.keycloak_cache_auth.requested_tenant") != "t1" {
		t.Error("the anonymous request's tenant is not known as the requested one")
	}
}

func TestPreflight(t *testing.T) {
	s := newSite(t)
	preflight := http.Header{"Origin": {"https://app"}, "Access-Control-Request-Method": {"GET"}}
	withToken := preflight.Clone()
	withToken["Authorization"] = []string{"Bearer " + s.token("alice")}
	withToken["X-Tenant-Id"] = []string{"t1"}
	for name, tc := range map[string]struct {
		preflight, method string
		fields            http.Header
		want              int
		wantStatus        string
	}{
		"by default it needs a token":     {"", http.MethodOptions, preflight, 401, ""},
		"authenticate":                    {"authenticate", http.MethodOptions, preflight, 401, ""},
		"pass":                            {"pass", http.MethodOptions, preflight, 0, "anonymous"},
		"pass, though it brings a token":  {"pass", http.MethodOptions, withToken, 0, "anonymous"},
		"not an OPTIONS":                  {"pass", http.MethodGet, preflight, 401, ""},
		"OPTIONS without the other parts": {"pass", http.MethodOptions, http.Header{"Origin": {"https://app"}}, 401, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := load(t, s.config(func(h *Handler) { h.Preflight = tc.preflight }))
			r := httptest.NewRequest(tc.method, "/", nil)
			r.Header = tc.fields.Clone()
			got := sendRequest(t, h, r)
			if got.status != tc.want || got.request.Get("X-Auth-Status") != tc.wantStatus {
				t.Errorf("status %d and X-Auth-Status %q, want %d and %q", got.status, got.request.Get("X-Auth-Status"), tc.want, tc.wantStatus)
			}
		})
	}
}

func TestStripToken_SP013(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) { h.StripToken, h.Optional = true, true }))
	if got := send(t, h, bearer(s.token("alice"), "t1")); got.request.Get("Authorization") != "" {
		t.Error("the token went on")
	}
	if got := send(t, h, http.Header{"Authorization": {"Basic YTpi"}}); got.request.Get("Authorization") == "" {
		t.Error("a credential that is none of ours was taken away")
	}
}

// A second handler that refuses must not leave the first one's user.
func TestSecondHandlerReplacesTheFirstOnesIdentity_SP012(t *testing.T) {
	s := newSite(t)
	first, _ := load(t, s.config())
	strict, _ := load(t, s.config(func(h *Handler) { h.Audiences = []string{"elsewhere"} }))
	optional, _ := load(t, s.config(func(h *Handler) { h.Optional = true; h.StripToken = true }))

	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = bearer(s.token("alice"), "t1")
	got := sendRequest(t, chain{first, strict}, r)
	if got.status != 401 {
		t.Fatalf("status %d, want 401", got.status)
	}
	if id := got.placeholder("http.auth.user.id"); id != "" {
		t.Errorf("after the second handler's refusal {http.auth.user.id} is %q", id)
	}

	r = httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = bearer(s.token("alice"), "t1")
	stripping, _ := load(t, s.config(func(h *Handler) { h.StripToken = true }))
	got = sendRequest(t, chain{stripping, optional}, r) // the second sees no token
	if got.status != 0 || got.request.Get("X-User-Id") != "" || got.placeholder("http.auth.user.id") != "" {
		t.Errorf("the anonymous second pass kept the first one's user: status %d, header %q, placeholder %q",
			got.status, got.request.Get("X-User-Id"), got.placeholder("http.auth.user.id"))
	}
}

// What another handler says about the user is no identity of ours.
func TestForeignIdentityDoesNotShineThrough(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) { h.Optional = true }))
	for name, fields := range map[string]http.Header{"member": bearer(s.token("bob"), "t1"), "anonymous": {}} {
		got := sendAfter(t, h, fields, func(set func(string, any)) {
			set("http.auth.user.id", "someone-else")
			set("http.auth.user.email", "someone@else")
			set("http.auth.user.claims.nested", "x")
		})
		for _, key := range []string{"id", "email", "claims.nested"} {
			if value := got.placeholder("http.auth.user." + key); strings.HasPrefix(value, "someone") || value == "x" {
				t.Errorf("%s: {http.auth.user.%s} is %q", name, key, value)
			}
		}
	}
}
