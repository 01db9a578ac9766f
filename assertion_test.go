package keycloakcacheauth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-jose/go-jose/v4"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// assertionKey writes a new key of a site to a file, and returns the path.
func assertionKey(tb testing.TB) string {
	tb.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(tb.TempDir(), "assertion.pem")
	writeKey(tb, path, key)
	return path
}

func writeKey(tb testing.TB, path string, key crypto.Signer) {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// asserting configures a site that signs, changed by the edits.
func (s *site) asserting(tb testing.TB, edits ...func(*Handler)) Handler {
	tb.Helper()
	key := assertionKey(tb)
	return s.config(append([]func(*Handler){func(h *Handler) {
		h.Assertion = &Assertion{Keys: []string{key}, Audiences: []string{"upstream"}, Issuer: "https://shop.example.com"}
	}}, edits...)...)
}

// asserted is what an assertion says.
type asserted struct {
	Issuer   string   `json:"iss"`
	Audience any      `json:"aud"`
	Subject  string   `json:"sub"`
	Tenant   string   `json:"tenant"`
	MemberID string   `json:"member_id"`
	Roles    []string `json:"roles"`
	IssuedAt int64    `json:"iat"`
	Expiry   int64    `json:"exp"`
}

// verifyAssertion verifies an assertion as an upstream does, with nothing but
// the keys that the handler serves.
func verifyAssertion(tb testing.TB, keys []byte, text string) asserted {
	tb.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(keys, &set); err != nil {
		tb.Fatalf("%s: %v", keys, err)
	}
	parsed, err := jose.ParseSigned(text, []jose.SignatureAlgorithm{jose.EdDSA, jose.ES256})
	if err != nil {
		tb.Fatalf("%q: %v", text, err)
	}
	payload, err := parsed.Verify(set)
	if err != nil {
		tb.Fatal(err)
	}
	var claims asserted
	if err := json.Unmarshal(payload, &claims); err != nil {
		tb.Fatal(err)
	}
	return claims
}

func keysOf(t *testing.T, h *Handler) []byte {
	t.Helper()
	return serveOwn(t, h, http.MethodGet, h.assertions.path).Body.Bytes()
}

func TestAssertionOfAMember(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.asserting(t))
	token := s.token("alice")
	got := send(t, h, bearer(token, "t1"))
	claims := verifyAssertion(t, keysOf(t, h), got.request.Get(headerAssertion))
	want := asserted{
		Issuer: "https://shop.example.com", Audience: "upstream", Subject: s.users["alice"].ID, Tenant: "t1",
		MemberID: "m-alice-1", Roles: []string{"editor", "viewer"}, IssuedAt: claims.IssuedAt, Expiry: claims.Expiry,
	}
	if !reflect.DeepEqual(claims, want) {
		t.Errorf("it says %+v, want %+v", claims, want)
	}
	if got.request.Get("X-Member-Id") != "m-alice-1" || got.request.Get("X-Auth-Status") != "member" {
		t.Errorf("the other headers are %v", got.request)
	}
	if other := send(t, h, bearer(token, "t2")); verifyAssertion(t, keysOf(t, h), other.request.Get(headerAssertion)).MemberID != "m-alice-2" {
		t.Error("the assertion for another tenant is not for another member")
	}
}

// The upstream believes this header more than any other, so nobody else may
// send it: not in any spelling, and not on any way through.
func TestClientsCannotSendAssertions(t *testing.T) {
	s := newSite(t)
	other, _ := load(t, s.asserting(t))
	stolen := send(t, other, bearer(s.token("bob"), "t1")).request.Get(headerAssertion)
	const own = "X-Who-Is-It"
	for name, tc := range map[string]struct {
		config Handler
		fields http.Header
		header string // that a member gets
		status int
	}{
		"a member":                          {s.asserting(t), bearer(s.token("alice"), "t1"), headerAssertion, 0},
		"a member, under a name of its own": {s.asserting(t, func(h *Handler) { h.Assertion.Header = own }), bearer(s.token("alice"), "t1"), own, 0},
		"an anonymous request":              {s.asserting(t, func(h *Handler) { h.Optional = true }), http.Header{}, "", 0},
		"an anonymous request, own name":    {s.asserting(t, func(h *Handler) { h.Optional, h.Assertion.Header = true, own }), http.Header{}, "", 0},
		"strip_only":                        {Handler{StripOnly: true, Headers: []Header{{own, "{http.auth.user.id}"}}}, http.Header{}, "", 0},
		"a site that signs nothing":         {s.config(func(h *Handler) { h.Headers = []Header{{own, "{http.auth.user.claims.no}"}} }), bearer(s.token("alice"), "t1"), "", 0},
		"not a member":                      {s.asserting(t), bearer(s.token("dave"), "t1"), "", 403},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := load(t, tc.config)
			for _, spelling := range []string{headerAssertion, "x_user_assertion", "X-User_Assertion", "X.User.Assertion", own, "x_who_is_it"} {
				fields := tc.fields.Clone()
				fields[spelling] = []string{stolen}
				fields["Connection"] = []string{spelling}
				if spelling != headerAssertion && spelling != "x_user_assertion" && !h.owned.has(spelling) && tc.header != own {
					continue // a name that is nobody's here
				}
				got := send(t, h, fields)
				if got.status != tc.status {
					t.Fatalf("%s: status %d, want %d", spelling, got.status, tc.status)
				}
				for name, values := range got.request {
					if slices.Contains(values, stolen) || name == "Connection" {
						t.Errorf("%s: %s is %q", spelling, name, values)
					}
				}
				if tc.header != "" && got.request.Get(tc.header) == "" {
					t.Errorf("%s: no assertion of our own", spelling)
				}
				if tc.header == "" && (got.request.Get(headerAssertion) != "" || got.request.Get(own) != "") {
					t.Errorf("%s: somebody who is no member got an assertion", spelling)
				}
			}
		})
	}
}

// An assertion is no longer good than what it is made from.
func TestAssertionNeverOutlivesTokenOrMember(t *testing.T) {
	const leeway = 5 * time.Second
	for name, tc := range map[string]struct {
		token     time.Duration // until its exp
		ttl       time.Duration // of members
		assertion time.Duration
		uncached  bool
		stale     bool
		want      time.Duration // at most
	}{
		"its own ttl ends first":                {5 * time.Minute, time.Hour, 30 * time.Second, false, false, 30 * time.Second},
		"the token ends first":                  {20 * time.Second, time.Hour, 5 * time.Minute, false, false, 20 * time.Second},
		"the token is over, but for the leeway": {-leeway, time.Hour, 5 * time.Minute, false, false, -leeway},
		"the member's entry ends first":         {5 * time.Minute, 15 * time.Second, 2 * time.Minute, false, false, 15 * time.Second},
		"a resolver that is never cached":       {5 * time.Minute, 25 * time.Second, 2 * time.Minute, true, false, 25 * time.Second},
		"never cached, and the token ends":      {10 * time.Second, 25 * time.Second, 2 * time.Minute, true, false, 10 * time.Second},
		"a stale member":                        {5 * time.Minute, 20 * time.Millisecond, 2 * time.Minute, false, true, trouble},
		"a stale member, and the token ends":    {2 * time.Second, 20 * time.Millisecond, 2 * time.Minute, false, true, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.source.uncached = tc.uncached
			h, _ := load(t, s.asserting(t, func(h *Handler) {
				h.TTL, h.Assertion.TTL = caddy.Duration(tc.ttl), caddy.Duration(tc.assertion)
				if tc.stale {
					h.StaleIfError = caddy.Duration(time.Hour)
				}
			}))
			end := time.Now().Add(tc.token).Truncate(time.Second)
			alice := bearer(s.token("alice", kctest.Claim("exp", end.Unix()), kctest.Claim("iat", end.Add(-time.Hour).Unix())), "t1")
			got := send(t, h, alice)
			if tc.stale {
				s.source.down()
				eventually(t, "serving stale", func() bool { got = send(t, h, alice); return cacheOf(got) == "stale" })
			}
			latest := time.Now().Add(tc.want)
			for _, from := range []string{"first", "again"} {
				if got.status != 0 {
					t.Fatalf("%s: status %d, %s", from, got.status, reasonOf(got))
				}
				exp := time.Unix(verifyAssertion(t, keysOf(t, h), got.request.Get(headerAssertion)).Expiry, 0)
				if exp.After(latest) || exp.After(end) {
					t.Errorf("%s: it is good until %s, the latest was %s, the token ends at %s", from, exp, latest, end)
				}
				if exp.Before(latest.Add(-5*time.Second - tc.ttl/10)) { // jitter, and a slow machine
					t.Errorf("%s: it ends at %s, long before %s", from, exp, latest)
				}
				if !tc.stale {
					got = send(t, h, alice)
					latest = latest.Add(time.Second) // never cached: looked at anew
				}
			}
		})
	}
}

// What another site has cached for longer than this one believes it is good
// here for as long as this one says.
func TestAssertionEndsByTheSitesOwnTTL(t *testing.T) {
	s := newSite(t)
	alice := bearer(s.token("alice"), "t1")
	patient, _ := load(t, s.asserting(t, func(h *Handler) { h.TTL = caddy.Duration(time.Hour) }))
	send(t, patient, alice)
	h, _ := load(t, s.asserting(t, func(h *Handler) { h.TTL = caddy.Duration(15 * time.Second) }))
	got := send(t, h, alice)
	if from := cacheOf(got); from != "memory" {
		t.Fatalf("she comes from %s", from)
	}
	exp := time.Unix(verifyAssertion(t, keysOf(t, h), got.request.Get(headerAssertion)).Expiry, 0)
	if latest := time.Now().Add(15 * time.Second); exp.After(latest) {
		t.Errorf("it is good until %s, after %s", exp, latest)
	}
}

func TestAssertionKeysAreServed(t *testing.T) {
	s := newSite(t)
	for name, tc := range map[string]struct{ configured, path string }{
		"where nothing is configured": {"", defaultAssertionPath},
		"where the site wants them":   {"/keys", "/keys"},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := load(t, s.asserting(t, func(h *Handler) { h.Assertion.JWKSPath = tc.configured }))
			rec := serveOwn(t, h, http.MethodGet, tc.path)
			var set struct{ Keys []map[string]any }
			if err := json.Unmarshal(rec.Body.Bytes(), &set); err != nil || len(set.Keys) != 1 {
				t.Fatalf("%s: %v", rec.Body, err)
			}
			for _, private := range []string{"d", "p", "q", "k"} {
				if _, there := set.Keys[0][private]; there {
					t.Errorf("the private part %q is published", private)
				}
			}
			for name, want := range map[string]string{
				"Content-Type": "application/jwk-set+json", "Cache-Control": "public, max-age=300", "X-Content-Type-Options": "nosniff",
			} {
				if got := rec.Header().Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if head := serveOwn(t, h, http.MethodHead, tc.path); head.Body.Len() != 0 || head.Code != 200 {
				t.Errorf("HEAD: status %d with %d bytes", head.Code, head.Body.Len())
			}
			for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "BREW", "get"} {
				r := httptest.NewRequest(method, tc.path, nil)
				r.Header = bearer(s.token("alice"), "t1")
				if got := sendRequest(t, h, r); got.status != 405 || got.response.Get("Allow") != "GET, HEAD" {
					t.Errorf("%s: status %d, Allow %q", method, got.status, got.response.Get("Allow"))
				}
			}
			for _, path := range []string{"/", tc.path + "/", tc.path + "x", "/x" + tc.path, strings.ToUpper(tc.path)} {
				if got := sendRequest(t, h, httptest.NewRequest(http.MethodGet, path, nil)); got.status != 401 {
					t.Errorf("%s: status %d, want 401", path, got.status)
				}
			}
		})
	}
}

// Keys are changed without a moment in which an upstream refuses what Caddy
// signs: the new one is published before it signs, the old one after it does.
func TestAssertionKeysRotateOverReloads(t *testing.T) {
	s := newSite(t)
	old := assertionKey(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(t.TempDir(), "next.pem")
	writeKey(t, next, ec)
	with := func(keys ...string) *Handler {
		h, _ := load(t, s.asserting(t, func(h *Handler) { h.Assertion.Keys = keys }))
		return h
	}
	alice := bearer(s.token("alice"), "t1")
	signed := func(h *Handler) string { return send(t, h, alice).request.Get(headerAssertion) }

	first, published, changed, dropped := with(old), with(old, next), with(next, old), with(next)
	before, after := signed(published), signed(changed)
	verifyAssertion(t, keysOf(t, first), before)    // who has the oldest keys
	verifyAssertion(t, keysOf(t, changed), before)  // who has the newest
	verifyAssertion(t, keysOf(t, published), after) // who has not fetched since
	verifyAssertion(t, keysOf(t, dropped), after)
	for _, key := range [][]byte{keysOf(t, first)} {
		if bytes.Contains(keysOf(t, dropped), key[len(`{"keys":[`):len(key)-2]) {
			t.Error("a key that was dropped is still published")
		}
	}
	if alg := changed.Assertion.Algorithm; alg != "" {
		t.Errorf("the algorithm was set to %q", alg)
	}
}

// A reload that leaves the assertion's settings alone signs nothing anew.
func TestAssertionsSurviveReloads(t *testing.T) {
	s := newSite(t)
	config := s.asserting(t)
	alice := bearer(s.token("alice"), "t1")
	first, _ := load(t, config)
	send(t, first, alice)
	second, _ := load(t, config)
	send(t, second, alice)
	if first.assertions.signer != second.assertions.signer {
		t.Error("unchanged settings made a signer anew")
	}
	for result, want := range map[string]float64{assertionSigned: 0, assertionReused: 1} {
		if got := testutil.ToFloat64(second.metrics.assertions.WithLabelValues(result)); got != want {
			t.Errorf("after the reload %v were %s, want %v", got, result, want)
		}
	}
	for name, edit := range map[string]func(a *Assertion){
		"audience": func(a *Assertion) { a.Audiences = []string{"another"} },
		"issuer":   func(a *Assertion) { a.Issuer = "https://other.example.com" },
		"ttl":      func(a *Assertion) { a.TTL = caddy.Duration(30 * time.Second) },
		"key":      func(a *Assertion) { a.Keys = []string{assertionKey(t)} },
		"a key":    func(a *Assertion) { a.Keys = append(slices.Clone(a.Keys), assertionKey(t)) },
	} {
		changed := *config.Assertion
		edit(&changed)
		other := config
		other.Assertion = &changed
		if third, _ := load(t, other); third.assertions.signer == first.assertions.signer {
			t.Errorf("another %s, and the same signer", name)
		}
	}
}

// What cannot be passed on whole is not passed on at all, and told as a fault
// of the server's.
func TestIdentityIsWholeOrRefused(t *testing.T) {
	many := func(n, size int) member.Value {
		roles := make([]string, n)
		for i := range roles {
			roles[i] = fmt.Sprintf("%0*d", size, i)
		}
		return member.List(roles...)
	}
	plan := func(size int) map[string]member.Value {
		return map[string]member.Value{"plan": member.Text(strings.Repeat("x", size))}
	}
	lines := func(names ...string) func(*Handler) {
		return func(h *Handler) {
			for _, name := range names {
				h.Headers = append(h.Headers, Header{name, "{http.auth.user.member.plan}"})
			}
		}
	}
	unsigned := func(h *Handler) { h.Assertion = nil }
	const line = len("X-A: ") + len("\r\n")
	for name, tc := range map[string]struct {
		attributes map[string]member.Value
		id         string
		edits      []func(*Handler)
		want       outcome
	}{
		"few roles":                         {map[string]member.Value{"roles": many(10, 10)}, "m", nil, outcomeMember},
		"too many roles for an assertion":   {map[string]member.Value{"roles": many(700, 10)}, "m", nil, outcomeIdentityTooLarge},
		"as many, and nothing is signed":    {map[string]member.Value{"roles": many(700, 10)}, "m", []func(*Handler){unsigned}, outcomeMember},
		"too many for the other headers":    {map[string]member.Value{"roles": many(1600, 10)}, "m", []func(*Handler){unsigned}, outcomeIdentityTooLarge},
		"headers as large as may be":        {plan(maxIdentitySize - line), "m", []func(*Handler){unsigned, lines("X-A")}, outcomeMember},
		"a byte more":                       {plan(maxIdentitySize - line + 1), "m", []func(*Handler){unsigned, lines("X-A")}, outcomeIdentityTooLarge},
		"each small, too large together":    {plan(maxIdentitySize / 3), "m", []func(*Handler){unsigned, lines("X-A", "X-B", "X-C")}, outcomeIdentityTooLarge},
		"too large with the assertion only": {plan(maxIdentitySize - line - 100), "m", []func(*Handler){lines("X-A")}, outcomeIdentityTooLarge},
		"SP-009: a value of 64 KiB":         {plan(64 << 10), "m", []func(*Handler){unsigned, lines("X-A")}, outcomeIdentityTooLarge},
		"grown by its encoding":             {map[string]member.Value{"plan": member.Text(strings.Repeat("ü", maxIdentitySize/4))}, "m", []func(*Handler){unsigned, lines("X-A")}, outcomeIdentityTooLarge},
		"an id that is not UTF-8":           {nil, "m\xff", nil, outcomeAssertionFailed},
		"a role that is not UTF-8":          {map[string]member.Value{"roles": member.List("a\xff")}, "m", nil, outcomeAssertionFailed},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.source.put(&member.Member{Tenant: "t1", KCID: s.users["alice"].ID, ID: tc.id, Active: true, Attributes: tc.attributes})
			h, logs := load(t, s.asserting(t, tc.edits...))
			h.mistakes.logger = h.logger
			fields := bearer(s.token("alice"), "t1")
			for range 3 {
				got := send(t, h, fields)
				if tc.want == outcomeMember {
					if got.status != 0 {
						t.Fatalf("status %d, %s", got.status, reasonOf(got))
					}
					continue
				}
				if got.status != 500 || reasonOf(got) != string(tc.want) {
					t.Fatalf("status %d, %s", got.status, reasonOf(got))
				}
				for _, placeholder := range []string{"id", "tenant", "member_id"} {
					if value := got.placeholder("http.auth.user." + placeholder); value != "" {
						t.Errorf("half an identity is left: {http.auth.user.%s} is %q", placeholder, value)
					}
				}
			}
			told := logs.FilterMessageSnippet("cannot be passed on").All()
			if want := 1; tc.want != outcomeMember && len(told) != want {
				t.Errorf("%d lines in the log, want %d", len(told), want)
			}
			if got := testutil.ToFloat64(h.metrics.requests.WithLabelValues(string(tc.want))); got != 3 {
				t.Errorf("%v requests were counted as %s", got, tc.want)
			}
		})
	}
}

// Error routes see the request that was refused; no identity may be on it.
func TestRefusedIdentityLeavesNoHeaders(t *testing.T) {
	s := newSite(t)
	s.source.put(&member.Member{
		Tenant: "t1", KCID: s.users["alice"].ID, ID: "m", Active: true,
		Attributes: map[string]member.Value{"roles": member.List(strings.Repeat("x", maxIdentitySize))},
	})
	h, _ := load(t, s.config())
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = bearer(s.token("alice"), "t1")
	if got := sendRequest(t, h, r); got.status != 500 {
		t.Fatalf("status %d", got.status)
	}
	for name := range r.Header {
		if h.owned.has(name) {
			t.Errorf("%s is left", name)
		}
	}
}

func TestAssertionKeyFaults(t *testing.T) {
	s := newSite(t)
	t.Setenv("KCA_TEST_NO_PEM", `{"kty":"OKP","d":"`+secretInTests+`"}`)
	t.Setenv("KCA_TEST_BROKEN_PEM", "-----BEGIN PRIVATE KEY-----\n"+secretInTests+"\n-----END PRIVATE KEY-----\n")
	public := filepath.Join(t.TempDir(), "public.pem")
	key, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	good := assertionKey(t)
	for name, tc := range map[string]struct {
		edit func(*Assertion)
		want string
	}{
		"a file that is not there":          {func(a *Assertion) { a.Keys = []string{"/no/such/key.pem"} }, "key 1: "},
		"a variable that is not set":        {func(a *Assertion) { a.Keys = []string{good, "{env.KCA_TEST_UNSET}"} }, "key 2: "},
		"a variable that holds no PEM":      {func(a *Assertion) { a.Keys = []string{"{env.KCA_TEST_NO_PEM}"} }, "neither PEM nor the path"},
		"a variable that holds broken PEM":  {func(a *Assertion) { a.Keys = []string{"{env.KCA_TEST_BROKEN_PEM}"} }, "key 1: "},
		"a key in the configuration itself": {func(a *Assertion) { a.Keys = []string{"-----BEGIN\n" + secretInTests} }, "in the configuration itself"},
		"a public key that is to sign":      {func(a *Assertion) { a.Keys = []string{public} }, "cannot sign"},
		"the same key twice":                {func(a *Assertion) { a.Keys = []string{good, good} }, "there twice"},
		"a key of another algorithm":        {func(a *Assertion) { a.Algorithm = "ES256" }, "not for ES256"},
		"no key":                            {func(a *Assertion) { a.Keys = nil }, "a key is required"},
		"no audience":                       {func(a *Assertion) { a.Audiences = nil }, "audience is required"},
		"no issuer, and no resource":        {func(a *Assertion) { a.Issuer = "" }, "issuer is required"},
		"an audience that is not set":       {func(a *Assertion) { a.Audiences = []string{"{env.KCA_TEST_UNSET}"} }, "audience: "},
		"ttl too long":                      {func(a *Assertion) { a.TTL = caddy.Duration(time.Hour) }, "ttl: "},
		"ttl negative":                      {func(a *Assertion) { a.TTL = -1 }, "ttl: "},
		"the tenant's header":               {func(a *Assertion) { a.Header = "X_Tenant_ID" }, "header: "},
		"a header with a meaning":           {func(a *Assertion) { a.Header = "Authorization" }, "header: "},
	} {
		t.Run(name, func(t *testing.T) {
			config := s.asserting(t)
			config.Assertion.Keys = []string{good}
			tc.edit(config.Assertion)
			_, _, err := loadJSON(t, asObject(t, config))
			if err == nil || !strings.Contains(err.Error(), "assertion: ") || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v does not contain %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), secretInTests) {
				t.Errorf("%v shows a secret", err)
			}
		})
	}
	if n := len(signers.All()); n != 0 {
		t.Errorf("%d signers of failed configurations are left", n)
	}
}

func TestAssertionKeyFromAVariable(t *testing.T) {
	s := newSite(t)
	path := assertionKey(t)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KCA_TEST_ASSERTION", string(text))
	t.Setenv("KCA_TEST_ASSERTION_DIR", filepath.Dir(path))
	for _, key := range []string{"{env.KCA_TEST_ASSERTION}", "{file." + path + "}", "{env.KCA_TEST_ASSERTION_DIR}/assertion.pem", path} {
		h, _ := load(t, s.asserting(t, func(h *Handler) { h.Assertion.Keys = []string{key} }))
		got := send(t, h, bearer(s.token("alice"), "t1"))
		verifyAssertion(t, keysOf(t, h), got.request.Get(headerAssertion))
	}
}

func TestAssertionIssuerIsTheResource(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.asserting(t, func(h *Handler) {
		h.Assertion.Issuer, h.Resource, h.ResourceMetadata = "", "https://app.example.com/api", "default"
	}))
	got := send(t, h, bearer(s.token("alice"), "t1"))
	if iss := verifyAssertion(t, keysOf(t, h), got.request.Get(headerAssertion)).Issuer; iss != "https://app.example.com/api" {
		t.Errorf("iss is %q", iss)
	}
}

// Without roles the assertion says so with an empty list.
func TestAssertedRoles(t *testing.T) {
	for name, tc := range map[string]struct {
		attributes map[string]member.Value
		want       []string
	}{
		"no attribute":  {nil, []string{}},
		"an empty text": {map[string]member.Value{"roles": member.Text("")}, []string{}},
		"an empty list": {map[string]member.Value{"roles": member.List()}, []string{}},
		"a text":        {map[string]member.Value{"roles": member.Text("editor")}, []string{"editor"}},
		"a list":        {map[string]member.Value{"roles": member.List("a,b", "{env.HOME}")}, []string{"a,b", "{env.HOME}"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.source.put(&member.Member{Tenant: "t1", KCID: s.users["alice"].ID, ID: "m", Active: true, Attributes: tc.attributes})
			h, _ := load(t, s.asserting(t))
			got := send(t, h, bearer(s.token("alice"), "t1"))
			if roles := verifyAssertion(t, keysOf(t, h), got.request.Get(headerAssertion)).Roles; !reflect.DeepEqual(roles, tc.want) {
				t.Errorf("roles are %q, want %q", roles, tc.want)
			}
		})
	}
}

// An assertion that was made before costs a copy of the roles, and its place
// among the headers.
func TestAssertionCostsNextToNothing(t *testing.T) {
	if raceDetector {
		t.Log("nothing is compared: the race detector allocates, too")
		return
	}
	s := newSite(t)
	cost := func(config Handler) float64 {
		h, _ := load(t, config)
		fields := bearer(s.token("alice"), "t1")
		send(t, h, fields)
		id := &identity{}
		repl := caddy.NewReplacer()
		tok, err := h.tokens.Verify(t.Context(), strings.TrimPrefix(fields.Get("Authorization"), "Bearer "))
		if err != nil {
			t.Fatal(err)
		}
		found, refused := h.members.find(t.Context(), tok.Token, "t1", nil)
		if refused != "" {
			t.Fatal(refused)
		}
		id.outcome, id.token, id.member, id.tenant, id.memberEnd = outcomeMember, tok.Token, found.member, "t1", found.end
		header := http.Header{}
		return testing.AllocsPerRun(1000, func() {
			if refused := h.identify(header, repl, id); refused != "" {
				t.Fatal(refused)
			}
		})
	}
	without, with := cost(s.config()), cost(s.asserting(t))
	if with > without+1 {
		t.Errorf("%v allocations with an assertion, %v without", with, without)
	}
}

func BenchmarkIdentify(b *testing.B) {
	s := newSite(b)
	for name, config := range map[string]Handler{"headers": s.config(), "headers and assertion": s.asserting(b)} {
		b.Run(name, func(b *testing.B) {
			h, _ := load(b, config)
			repl, header := caddy.NewReplacer(), http.Header{}
			now := time.Now()
			id := &identity{outcome: outcomeMember, tenant: "t1", memberEnd: now.Add(time.Hour)}
			tok, err := h.tokens.Verify(b.Context(), s.token("alice"))
			if err != nil {
				b.Fatal(err)
			}
			id.token = tok.Token
			id.member = &member.Member{ID: "m", Attributes: map[string]member.Value{"roles": member.List("editor", "viewer")}}
			b.ReportAllocs()
			for b.Loop() {
				h.identify(header, repl, id)
			}
		})
	}
}

// Others than the owner of a key's file must not be able to read it: whoever
// can is anybody to the upstream.
func TestExposedAssertionKeyWarns(t *testing.T) {
	path := assertionKey(t)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, warning, err := readAssertionKey(caddy.NewReplacer(), path); err != nil || !strings.Contains(warning, "chmod 600") {
		t.Errorf("warning %q, error %v", warning, err)
	}
}
