package introspect

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
)

func TestTheRequestIsThatOfRFC7662(t *testing.T) {
	f := newFake(t)
	c, _ := newTestClient(t, f)
	const odd = "a+b/c=&token=x %20\x00ü"
	answer, err := c.Introspect(t.Context(), odd)
	wantActive(t, answer, err)
	r := f.request()
	if r.method != "POST" || r.path != "/realms/acme/introspect" {
		t.Errorf("asked %s %s", r.method, r.path)
	}
	if got := r.form["token"]; len(got) != 1 || got[0] != odd {
		t.Errorf("token is %q", got)
	}
	if got := r.form.Get("token_type_hint"); got != "access_token" {
		t.Errorf("token_type_hint is %q", got)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json",
	} {
		if got := r.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if _, sent := r.header["Idempotency-Key"]; sent {
		t.Error("Idempotency-Key was sent")
	}
}

func TestClientSecrets(t *testing.T) {
	for name, pair := range map[string][2]string{
		"plain ones":                 {"proxy", "secret"},
		"a space, colon and percent": {"a b:c%", "s :%"},
		"the separators of forms":    {"a+b&c=d", "+&="},
		"not ASCII":                  {"prüfer", "schlüssel\"\\"},
		"what looks encoded":         {"a%20b", "%3A"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c, _ := newTestClient(t, f, func(cfg *Config) { cfg.ClientID, cfg.ClientSecret = pair[0], pair[1] })
			answer, err := c.Introspect(t.Context(), rawToken)
			wantActive(t, answer, err)
			basic := f.request()
			if id, secret := readBasic(t, basic.header.Get("Authorization")); id != pair[0] || secret != pair[1] {
				t.Errorf("client_secret_basic sent %q and %q", id, secret)
			}
			if basic.form.Has("client_id") || basic.form.Has("client_secret") {
				t.Error("client_secret_basic sent them in the body, too")
			}
			c, _ = newTestClient(t, f, func(cfg *Config) {
				cfg.ClientID, cfg.ClientSecret, cfg.SecretInBody = pair[0], pair[1], true
			})
			answer, err = c.Introspect(t.Context(), rawToken)
			wantActive(t, answer, err)
			post := f.request()
			if id, secret := post.form.Get("client_id"), post.form.Get("client_secret"); id != pair[0] || secret != pair[1] {
				t.Errorf("client_secret_post sent %q and %q", id, secret)
			}
			if post.header.Get("Authorization") != "" {
				t.Error("client_secret_post sent Authorization, too")
			}
		})
	}
}

// readBasic is the server's side of RFC 6749 §2.3.1.
func readBasic(t *testing.T, field string) (id, secret string) {
	t.Helper()
	encoded, ok := strings.CutPrefix(field, "Basic ")
	text, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil {
		t.Fatalf("Authorization is %q", field)
	}
	encodedID, encodedSecret, _ := strings.Cut(string(text), ":")
	if id, err = url.QueryUnescape(encodedID); err != nil {
		t.Fatal(err)
	}
	if secret, err = url.QueryUnescape(encodedSecret); err != nil {
		t.Fatal(err)
	}
	return id, secret
}

func TestClientAssertions(t *testing.T) {
	rsaKey, p256, p521, edKey := newKeys(t)
	for name, test := range map[string]struct {
		key       crypto.Signer
		asJWK     *jose.JSONWebKey // instead of PEM
		algorithm string           // configured
		id        string           // configured
		want      jose.SignatureAlgorithm
		wantID    string
	}{
		"an RSA key signs RS256":                        {key: rsaKey, want: jose.RS256},
		"an RSA key signs PS256 if so configured":       {key: rsaKey, algorithm: "PS256", want: jose.PS256},
		"a P-256 key signs ES256":                       {key: p256, want: jose.ES256},
		"a P-521 key signs ES512":                       {key: p521, want: jose.ES512},
		"an Ed25519 key signs EdDSA":                    {key: edKey, want: jose.EdDSA},
		"a key id is named":                             {key: edKey, id: "mine", want: jose.EdDSA, wantID: "mine"},
		"a JWK brings algorithm and key id":             {key: rsaKey, asJWK: &jose.JSONWebKey{Algorithm: "PS384", KeyID: "its"}, want: jose.PS384, wantID: "its"},
		"a JWK's algorithm and key id may be overruled": {key: rsaKey, asJWK: &jose.JSONWebKey{Algorithm: "PS384", KeyID: "its"}, algorithm: "RS512", id: "mine", want: jose.RS512, wantID: "mine"},
		"an Ed25519 JWK":                                {key: edKey, asJWK: &jose.JSONWebKey{}, want: jose.EdDSA},
		"a P-256 JWK":                                   {key: p256, asJWK: &jose.JSONWebKey{Use: "sig"}, want: jose.ES256},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			content := pemOf(t, test.key)
			if test.asJWK != nil {
				test.asJWK.Key = test.key
				content = marshal(t, *test.asJWK)
			}
			c, clock := newTestClient(t, f, func(cfg *Config) {
				cfg.ClientSecret = ""
				cfg.PrivateKey, cfg.Algorithm, cfg.KeyID = content, test.algorithm, test.id
			})
			seen := map[string]bool{}
			for range 3 {
				answer, err := c.Introspect(t.Context(), rawToken)
				wantActive(t, answer, err)
				r := f.request()
				if r.form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" ||
					r.form.Has("client_secret") || r.header.Get("Authorization") != "" {
					t.Errorf("sent %v, Authorization %q", r.form, r.header.Get("Authorization"))
				}
				parsed, err := jose.ParseSignedCompact(r.form.Get("client_assertion"), []jose.SignatureAlgorithm{test.want})
				if err != nil {
					t.Fatal(err)
				}
				text, err := parsed.Verify(test.key.Public())
				if err != nil {
					t.Fatal(err)
				}
				if header := parsed.Signatures[0].Header; header.KeyID != test.wantID || header.ExtraHeaders["typ"] != "JWT" {
					t.Errorf("the header is %+v", header)
				}
				var claims struct {
					Iss, Sub, Aud, Jti string
					Iat, Exp           int64
				}
				if err := json.Unmarshal(text, &claims, json.MatchCaseInsensitiveNames(true), json.RejectUnknownMembers(true)); err != nil {
					t.Fatal(err) // also where aud is a list: Keycloak wants one string
				}
				if claims.Iss != "proxy" || claims.Sub != "proxy" || claims.Aud != f.issuer() {
					t.Errorf("the claims are %+v", claims)
				}
				now := clock.now().Unix()
				if claims.Iat != now || claims.Exp <= now || claims.Exp > now+60 {
					t.Errorf("issued %d, expires %d, at %d", claims.Iat, claims.Exp, now)
				}
				if len(claims.Jti) < 22 || seen[claims.Jti] {
					t.Errorf("jti is %q, seen before: %v", claims.Jti, seen[claims.Jti])
				}
				seen[claims.Jti] = true
				clock.advance(time.Second)
			}
		})
	}
}

func newKeys(t *testing.T) (*rsa.PrivateKey, *ecdsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey) {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return rsaKey, p256, p521, edKey
}

func marshal(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
