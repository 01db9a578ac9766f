package keycloakcacheauth

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// dpopClient holds a key that its tokens are bound to.
type dpopClient struct{ key *kctest.Key }

func newDPoPClient() dpopClient { return dpopClient{kctest.NewKey("ES256")} }

func (c dpopClient) jwk() map[string]any {
	jwk := c.key.JWK()
	return map[string]any{"kty": jwk["kty"], "crv": jwk["crv"], "x": jwk["x"], "y": jwk["y"]}
}

// thumbprint is RFC 7638's: the required members, in their order.
func (c dpopClient) thumbprint(tb testing.TB) string {
	tb.Helper()
	text, err := json.Marshal(c.jwk()) // encoding/json sorts names, and nothing here needs escapes
	if err != nil {
		tb.Fatal(err)
	}
	return digest64(text)
}

func digest64(text []byte) string {
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// token returns a member's token that is bound to the client's key.
func (c dpopClient) token(tb testing.TB, s *site, options ...kctest.Option) string {
	tb.Helper()
	return s.token("alice", append([]kctest.Option{
		kctest.Claim("typ", "DPoP"),
		kctest.Claim("cnf", map[string]any{"jkt": c.thumbprint(tb)}),
	}, options...)...)
}

// proof returns a proof for GET http://site.example/ with a token, with other
// values for some of its claims; nil removes one.
func (c dpopClient) proof(tb testing.TB, token string, changes map[string]any) string {
	tb.Helper()
	claims := map[string]any{
		"jti": rand.Text(), "htm": "GET", "htu": "http://site.example/",
		"iat": time.Now().Unix(), "ath": digest64([]byte(token)),
	}
	for name, value := range changes {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	header, err := json.Marshal(map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": c.jwk()})
	if err != nil {
		tb.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		tb.Fatal(err)
	}
	return c.key.Sign("ES256", header, payload)
}

func dpopFields(token string, proofs ...string) http.Header {
	return http.Header{"Authorization": {"DPoP " + token}, "Dpop": proofs, "X-Tenant-Id": {"t1"}}
}

func withDPoP(mode string) func(*Handler) {
	return func(h *Handler) { h.DPoP = &DPoP{Mode: mode} }
}

func reasonOf(a answered) string { return a.placeholder("http.keycloak_cache_auth.reason") }

func TestDPoP(t *testing.T) {
	s := newSite(t)
	accepted, _ := load(t, s.config(withDPoP(dpopAccepted)))
	required, _ := load(t, s.config(withDPoP(dpopRequired)))
	off, _ := load(t, s.config())
	client, other := newDPoPClient(), newDPoPClient()
	bound, plain := client.token(t, s), s.token("alice")

	const (
		bareBearer  = `Bearer`
		badBearer   = `Bearer error="invalid_token"`
		algorithms  = `algs="ES256 Ed25519 EdDSA PS256 RS256"`
		bareDPoP    = `DPoP ` + algorithms
		badDPoP     = `DPoP error="invalid_token", ` + algorithms
		proofFailed = `DPoP error="invalid_dpop_proof", ` + algorithms
	)
	for name, tc := range map[string]struct {
		handler    *Handler
		fields     http.Header
		outcome    outcome
		challenges []string
	}{
		"a bound token with its proof":                    {accepted, dpopFields(bound, client.proof(t, bound, nil)), outcomeMember, nil},
		"the same where bound tokens are required":        {required, dpopFields(bound, client.proof(t, bound, nil)), outcomeMember, nil},
		"a plain bearer token where DPoP is accepted":     {accepted, bearer(plain, "t1"), outcomeMember, nil},
		"a plain bearer token where DPoP is required":     {required, bearer(plain, "t1"), outcomeNotBound, []string{badDPoP}},
		"nothing where DPoP is accepted":                  {accepted, http.Header{}, outcomeMissingToken, []string{bareBearer, bareDPoP}},
		"nothing where DPoP is required":                  {required, http.Header{}, outcomeMissingToken, []string{bareDPoP}},
		"a bad bearer token where DPoP is accepted":       {accepted, bearer("x.y.z", "t1"), "token_malformed", []string{badBearer, bareDPoP}},
		"a bad token under DPoP":                          {accepted, dpopFields("x.y.z", client.proof(t, "x.y.z", nil)), "token_malformed", []string{bareBearer, badDPoP}},
		"a plain token under DPoP, with a proof":          {accepted, dpopFields(plain, client.proof(t, plain, nil)), outcomeNotBound, []string{bareBearer, badDPoP}},
		"PP-001 a bound token as Bearer":                  {accepted, bearer(bound, "t1"), outcomeBoundAsBearer, []string{badBearer, bareDPoP}},
		"PP-001 a bound token as Bearer, with its proof":  {accepted, http.Header{"Authorization": {"Bearer " + bound}, "Dpop": {client.proof(t, bound, nil)}, "X-Tenant-Id": {"t1"}}, outcomeBoundAsBearer, []string{badBearer, bareDPoP}},
		"PP-001 a bound token as Bearer, DPoP off":        {off, bearer(bound, "t1"), "cnf_unsupported", []string{badBearer}},
		"PP-004 a bound token with its proof, DPoP off":   {off, dpopFields(bound, client.proof(t, bound, nil)), outcomeMissingToken, []string{bareBearer}},
		"PP-005 no proof":                                 {accepted, dpopFields(bound), outcomeInvalidProof, []string{bareBearer, proofFailed}},
		"PP-005 two proofs":                               {accepted, dpopFields(bound, client.proof(t, bound, nil), client.proof(t, bound, nil)), outcomeInvalidProof, []string{bareBearer, proofFailed}},
		"PP-005 the proof of another key":                 {accepted, dpopFields(bound, other.proof(t, bound, nil)), outcomeInvalidProof, []string{bareBearer, proofFailed}},
		"PP-005 a proof for another method":               {accepted, dpopFields(bound, client.proof(t, bound, map[string]any{"htm": "POST"})), outcomeInvalidProof, []string{bareBearer, proofFailed}},
		"PP-005 a proof for another path":                 {accepted, dpopFields(bound, client.proof(t, bound, map[string]any{"htu": "http://site.example/other"})), outcomeInvalidProof, []string{bareBearer, proofFailed}},
		"PP-005 a proof for another host":                 {accepted, dpopFields(bound, client.proof(t, bound, map[string]any{"htu": "http://evil.example/"})), outcomeInvalidProof, []string{bareBearer, proofFailed}},
		"PP-005 a proof for https, where it was http":     {accepted, dpopFields(bound, client.proof(t, bound, map[string]any{"htu": "https://site.example/"})), outcomeInvalidProof, []string{bareBearer, proofFailed}},
		"PP-005 an old proof":                             {accepted, dpopFields(bound, client.proof(t, bound, map[string]any{"iat": time.Now().Add(-2 * time.Minute).Unix()})), outcomeInvalidProof, []string{bareBearer, proofFailed}},
		"PP-005 a proof for another token":                {accepted, dpopFields(bound, client.proof(t, plain, nil)), outcomeInvalidProof, []string{bareBearer, proofFailed}},
		"PP-005 a proof that names no token":              {accepted, dpopFields(bound, client.proof(t, bound, map[string]any{"ath": nil})), outcomeInvalidProof, []string{bareBearer, proofFailed}},
		"a proof with a query in its URL, which is equal": {accepted, dpopFields(bound, client.proof(t, bound, map[string]any{"htu": "http://SITE.example:80/?a=b"})), outcomeMember, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := send(t, tc.handler, tc.fields)
			if reasonOf(got) != string(tc.outcome) {
				t.Errorf("decided as %s, want %s", reasonOf(got), tc.outcome)
			}
			if challenges := got.response.Values("Www-Authenticate"); !slices.Equal(challenges, tc.challenges) {
				t.Errorf("challenges %q, want %q", challenges, tc.challenges)
			}
		})
	}
}

// A proof is good once, at all handlers and nodes with one store.
func TestProofIsGoodOnce(t *testing.T) {
	s := newSite(t)
	one, _ := load(t, s.config(withDPoP(dpopAccepted)))
	two, _ := load(t, s.config(withDPoP(dpopRequired)))
	client := newDPoPClient()
	bound := client.token(t, s)
	fields := dpopFields(bound, client.proof(t, bound, nil))
	if got := send(t, one, fields); got.status != 0 {
		t.Fatalf("status %d: %s", got.status, reasonOf(got))
	}
	t.Run("PP-005 again at the same handler", func(t *testing.T) {
		if got := send(t, one, fields); got.status != 401 || reasonOf(got) != string(outcomeInvalidProof) {
			t.Errorf("status %d, %s", got.status, reasonOf(got))
		}
	})
	t.Run("PP-005 again at another with the same store", func(t *testing.T) {
		if got := send(t, two, fields); got.status != 401 || reasonOf(got) != string(outcomeInvalidProof) {
			t.Errorf("status %d, %s", got.status, reasonOf(got))
		}
	})
	t.Run("a new proof of the same client", func(t *testing.T) {
		if got := send(t, one, dpopFields(bound, client.proof(t, bound, nil))); got.status != 0 {
			t.Errorf("status %d: %s", got.status, reasonOf(got))
		}
	})
}

// RFC 9449 sections 8 and 9: the client learns the nonce from the refusal.
func TestProofNonces(t *testing.T) {
	s := newSite(t)
	client := newDPoPClient()
	bound := client.token(t, s)
	secret := strings.Repeat("s", minNonceSecret)
	node := func(secret string) *Handler {
		h, _ := load(t, s.config(func(h *Handler) {
			h.DPoP = &DPoP{Mode: dpopAccepted, Nonce: true, NonceSecret: secret}
		}))
		return h
	}
	one, two, apart := node(secret), node(secret), node("")

	refused := send(t, one, dpopFields(bound, client.proof(t, bound, nil)))
	nonce := refused.response.Get("DPoP-Nonce")
	if reasonOf(refused) != string(outcomeNonceNeeded) || nonce == "" {
		t.Fatalf("decided as %s, with nonce %q", reasonOf(refused), nonce)
	}
	if challenges := strings.Join(refused.response.Values("Www-Authenticate"), "\n"); !strings.Contains(challenges, `DPoP error="use_dpop_nonce"`) {
		t.Errorf("challenges %q", challenges)
	}
	withNonce := map[string]any{"nonce": nonce}
	for name, h := range map[string]*Handler{"this node": one, "a node with the same secret": two} {
		got := send(t, h, dpopFields(bound, client.proof(t, bound, withNonce)))
		if got.status != 0 || got.response.Get("DPoP-Nonce") == "" {
			t.Errorf("%s: status %d, %s, next nonce %q", name, got.status, reasonOf(got), got.response.Get("DPoP-Nonce"))
		}
	}
	if got := send(t, apart, dpopFields(bound, client.proof(t, bound, withNonce))); reasonOf(got) != string(outcomeNonceNeeded) {
		t.Errorf("a node with another secret: %s", reasonOf(got))
	}
}

// The URL of a proof is the one the client used, whatever Caddy rewrote, and
// whatever stands in front of Caddy.
func TestProofURLs(t *testing.T) {
	s := newSite(t)
	client := newDPoPClient()
	bound := client.token(t, s)
	for name, tc := range map[string]struct {
		origins []string
		tls     bool
		path    string
		htu     string
		want    outcome
	}{
		"over TLS":                              {nil, true, "/a", "https://site.example/a", outcomeMember},
		"over TLS, proof for http":              {nil, true, "/a", "http://site.example/a", outcomeInvalidProof},
		"an origin in front":                    {[]string{"https://app.example.com"}, false, "/a", "https://app.example.com/a", outcomeMember},
		"the second of two origins":             {[]string{"https://app.example.com", "https://b.example:8443"}, false, "/a", "https://b.example:8443/a", outcomeMember},
		"an origin in front, proof for what is": {[]string{"https://app.example.com"}, false, "/a", "http://site.example/a", outcomeInvalidProof},
		"an escaped path, as it came":           {nil, false, "/a%20b/%C3%A9", "http://site.example/a%20b/%C3%A9", outcomeMember},
		"an escaped path, escapes in lower":     {nil, false, "/a%20b/%C3%A9", "http://site.example/a%20b/%c3%a9", outcomeMember},
		"a slash that is escaped is no slash":   {nil, false, "/a%2Fb", "http://site.example/a/b", outcomeInvalidProof},
		"nor beside what has to be escaped":     {nil, false, "/a%2Fb|", "http://site.example/a/b%7C", outcomeInvalidProof},
		"nor with the URL in the request line":  {nil, false, "http://site.example/a%2Fb|", "http://site.example/a/b%7C", outcomeInvalidProof},
		"a fragment in the request line":        {nil, false, "/a#/../b", "http://site.example/a", outcomeInvalidProof},
		"the URL in the request line":           {nil, false, "http://site.example/a?b", "http://site.example/a", outcomeMember},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := load(t, s.config(func(h *Handler) { h.DPoP = &DPoP{Mode: dpopAccepted, Origins: tc.origins} }))
			r := httptest.NewRequest(http.MethodGet, tc.path, nil)
			r.Host = "site.example"
			if tc.tls {
				r.TLS = &tls.ConnectionState{}
			}
			maps.Copy(r.Header, dpopFields(bound, client.proof(t, bound, map[string]any{"htu": tc.htu})))
			rewritten := chain{rewriter("/rewritten"), h}
			if got := sendRequest(t, rewritten, r); reasonOf(got) != string(tc.want) {
				t.Errorf("decided as %s, want %s", reasonOf(got), tc.want)
			}
		})
	}
}

// strip_token takes the proof with the token.
func TestStripTokenTakesTheProof(t *testing.T) {
	s := newSite(t)
	client := newDPoPClient()
	bound := client.token(t, s)
	h, _ := load(t, s.config(withDPoP(dpopAccepted), func(h *Handler) { h.StripToken = true }))
	got := send(t, h, dpopFields(bound, client.proof(t, bound, nil)))
	if got.status != 0 {
		t.Fatalf("status %d: %s", got.status, reasonOf(got))
	}
	for _, name := range []string{"Authorization", "Dpop"} {
		if values, there := got.request[name]; there {
			t.Errorf("%s went on: %q", name, values)
		}
	}
}

// A token is remembered for all handlers, but what one verifies of its sender,
// another may not.
func TestRememberedBoundTokens(t *testing.T) {
	s := newSite(t)
	accepted, _ := load(t, s.config(withDPoP(dpopAccepted)))
	off, _ := load(t, s.config())
	client := newDPoPClient()
	bound := client.token(t, s)
	if got := send(t, accepted, dpopFields(bound, client.proof(t, bound, nil))); got.status != 0 {
		t.Fatalf("status %d: %s", got.status, reasonOf(got))
	}
	for name, h := range map[string]*Handler{"cnf_unsupported": off, string(outcomeBoundAsBearer): accepted} {
		if got := send(t, h, bearer(bound, "t1")); reasonOf(got) != name {
			t.Errorf("as Bearer: decided as %s, want %s", reasonOf(got), name)
		}
	}
}

// RFC 8705 section 3.
func TestCertificateBoundTokens(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	certificate, stranger := &x509.Certificate{Raw: []byte("the client's")}, &x509.Certificate{Raw: []byte("another's")}
	bound := s.token("alice", kctest.Claim("cnf", map[string]any{"x5t#S256": digest64(certificate.Raw)}))
	both := s.token("alice", kctest.Claim("typ", "DPoP"), kctest.Claim("cnf", map[string]any{
		"x5t#S256": digest64(certificate.Raw), "jkt": newDPoPClient().thumbprint(t),
	}))
	for name, tc := range map[string]struct {
		token string
		tls   *tls.ConnectionState
		want  outcome
	}{
		"with its certificate":                         {bound, &tls.ConnectionState{PeerCertificates: []*x509.Certificate{certificate, stranger}}, outcomeMember},
		"PP-003 without TLS":                           {bound, nil, outcomeCertificateMissing},
		"PP-003 over TLS, without a certificate":       {bound, &tls.ConnectionState{}, outcomeCertificateMissing},
		"with another certificate":                     {bound, &tls.ConnectionState{PeerCertificates: []*x509.Certificate{stranger}}, outcomeCertificateOther},
		"with another certificate, and its own second": {bound, &tls.ConnectionState{PeerCertificates: []*x509.Certificate{stranger, certificate}}, outcomeCertificateOther},
		"bound to a key as well, which is not proven":  {both, &tls.ConnectionState{PeerCertificates: []*x509.Certificate{certificate}}, outcomeCertificateMissing},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "http://site.example/", nil)
			maps.Copy(r.Header, bearer(tc.token, "t1"))
			// what proxies in front say is not believed
			r.Header.Set("X-Forwarded-Client-Cert", "Hash="+digest64(certificate.Raw))
			r.Header.Set("Client-Cert", ":"+base64.StdEncoding.EncodeToString(certificate.Raw)+":")
			r.TLS = tc.tls
			if got := sendRequest(t, h, r); reasonOf(got) != string(tc.want) {
				t.Errorf("decided as %s, want %s", reasonOf(got), tc.want)
			}
		})
	}
}

// rewriter changes the path, as Caddy's rewrite does before us.
type rewriter string

func (p rewriter) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	r.URL.Path, r.URL.RawPath = string(p), ""
	return next.ServeHTTP(w, r)
}

// No proof, and nothing of one, is ever logged.
func TestProofsAreNotLogged(t *testing.T) {
	s := newSite(t)
	h, logs := load(t, s.config(withDPoP(dpopAccepted)))
	client := newDPoPClient()
	bound := client.token(t, s)
	proof := client.proof(t, bound, map[string]any{"htm": "POST"})
	send(t, h, dpopFields(bound, proof))
	var text bytes.Buffer
	for _, entry := range logs.All() {
		line, err := json.Marshal(entry.ContextMap())
		if err != nil {
			t.Fatal(err)
		}
		text.Write(line)
	}
	for _, part := range append(strings.Split(proof, "."), strings.Split(bound, ".")...) {
		if strings.Contains(text.String(), part) {
			t.Errorf("the log holds %.20s…", part)
		}
	}
}
