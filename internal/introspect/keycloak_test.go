package introspect

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// oddID and oddSecret have what RFC 6749 §2.3.1 encodes, and what separates them.
const (
	oddID     = "a b:c%/ü+&"
	oddSecret = "s :%+&=/ü\"\\"
)

// realm is one of the real Keycloak, whose client app gets lightweight tokens for
// clients that introspect.
type realm struct {
	*servers.KeycloakRealm
	app   servers.KeycloakClient
	alice string // her id
}

func newRealm(t *testing.T) *realm {
	t.Helper()
	server := servers.Keycloak(t)
	ctx := t.Context()
	made, err := server.CreateRealm(ctx, "introspect "+strings.ToLower(rand.Text()[:6]), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := made.Delete(context.Background()); err != nil {
			t.Error(err)
		}
	})
	r := &realm{KeycloakRealm: made, app: servers.KeycloakClient{
		ID: "app", Secret: "app secret", Audiences: []string{oddID, "with keys", "with certificate"},
		Attributes: map[string]string{"client.use.lightweight.access.token.enabled": "true"},
	}}
	if r.alice, err = made.CreateUser(ctx, servers.KeycloakUser{Username: "alice", Password: "secret"}); err != nil {
		t.Fatal(err)
	}
	for _, client := range []servers.KeycloakClient{
		r.app,
		{ID: oddID, Secret: oddSecret},
		{ID: "stranger", Secret: "secret"},
		{ID: "public"},
		{ID: "unchecked", Secret: "secret", Attributes: map[string]string{"allow.token.introspection.without.audience.check": "true"}},
	} {
		if err := made.CreateClient(ctx, client); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// createKeyClient makes a client that proves itself by private_key_jwt.
func (r *realm) createKeyClient(t *testing.T, id string, attributes map[string]string) {
	t.Helper()
	if err := r.Call(t.Context(), http.MethodPost, "/clients", map[string]any{
		"clientId": id, "enabled": true, "protocol": "openid-connect", "publicClient": false,
		"clientAuthenticatorType": "client-jwt", "attributes": attributes,
	}, nil); err != nil {
		t.Fatal(err)
	}
}

func (r *realm) login(t *testing.T) *servers.KeycloakTokens {
	t.Helper()
	tokens, err := r.PasswordTokens(t.Context(), r.app, "alice", "secret")
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

// client returns one that discovers the endpoint.
func (r *realm) client(t *testing.T, cfg Config) *Client {
	t.Helper()
	cfg.Issuer = r.Issuer()
	cfg.Timeout = 30 * time.Second // Keycloak's first answers take their time
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestKeycloak is one test for all, since the server takes long to start.
func TestKeycloak(t *testing.T) {
	r := newRealm(t)
	tokens := r.login(t)
	inAudience := Config{ClientID: oddID, ClientSecret: oddSecret}
	unchecked := Config{ClientID: "unchecked", ClientSecret: "secret"}

	t.Run("a lightweight token's subject and audience are in the answer", func(t *testing.T) {
		said := payload(t, tokens.AccessToken)
		if said["sub"] != nil || said["aud"] != nil {
			t.Fatalf("the token is not lightweight: %v", said)
		}
		answer, err := r.client(t, inAudience).Introspect(t.Context(), tokens.AccessToken)
		if err != nil {
			t.Fatal(err)
		}
		claims := claimsOf(t, answer)
		if claims["sub"] != r.alice || claims["typ"] != "Bearer" || claims["token_type"] != "Bearer" {
			t.Errorf("the claims are %v", claims)
		}
		for _, same := range []string{"iss", "exp", "iat", "jti", "azp", "sid", "scope"} {
			if claims[same] == nil || claims[same] != said[same] {
				t.Errorf("%s is %v, in the token %v", same, claims[same], said[same])
			}
		}
		if audiences, _ := claims["aud"].([]any); !slices.Contains(audiences, any(oddID)) {
			t.Errorf("aud is %v", claims["aud"])
		}
	})

	t.Run("KC-019 what is no access token is active, and tells by its typ", func(t *testing.T) {
		for typ, test := range map[string]struct {
			raw string
			cfg Config
		}{
			// the audience of the one is the client that logged in, of the other the issuer
			"ID":      {tokens.IDToken, Config{ClientID: r.app.ID, ClientSecret: r.app.Secret}},
			"Refresh": {tokens.RefreshToken, unchecked},
		} {
			answer, err := r.client(t, test.cfg).Introspect(t.Context(), test.raw)
			if err != nil {
				t.Errorf("%s: %v", typ, err)
				continue
			}
			if claims := claimsOf(t, answer); claims["typ"] != typ || claims["token_type"] != typ {
				t.Errorf("typ is %v, token_type %v, want %s", claims["typ"], claims["token_type"], typ)
			}
		}
	})

	t.Run("a client that is not in the audience is told inactive", func(t *testing.T) {
		_, err := r.client(t, Config{ClientID: "stranger", ClientSecret: "secret"}).Introspect(t.Context(), tokens.AccessToken)
		if !errors.Is(err, ErrInactive) {
			t.Errorf("got %v", err)
		}
		if _, err := r.client(t, unchecked).Introspect(t.Context(), tokens.AccessToken); err != nil {
			t.Errorf("exempt from the check: %v", err)
		}
	})

	t.Run("client secrets", func(t *testing.T) {
		for name, test := range map[string]struct {
			cfg  Config
			want string // "" is accepted
		}{
			"client_secret_basic":     {inAudience, ""},
			"client_secret_post":      {Config{ClientID: oddID, ClientSecret: oddSecret, SecretInBody: true}, ""},
			"a wrong secret":          {Config{ClientID: oddID, ClientSecret: "wrong"}, "client authentication failed"},
			"a wrong secret, by post": {Config{ClientID: oddID, ClientSecret: "wrong", SecretInBody: true}, "client authentication failed"},
			"an unknown client":       {Config{ClientID: "nobody", ClientSecret: "wrong"}, "client authentication failed"},
			"a public client":         {Config{ClientID: "public", ClientSecret: "wrong"}, "confidential client"},
			"a client that has keys":  {Config{ClientID: "with keys", ClientSecret: "wrong"}, "client authentication failed"},
		} {
			_, err := r.client(t, test.cfg).Introspect(t.Context(), tokens.AccessToken)
			if test.want != "" {
				wantUnavailable(t, err, test.want)
			} else if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})

	t.Run("private_key_jwt", func(t *testing.T) { r.privateKeys(t, tokens.AccessToken) })

	t.Run("a token that Keycloak stumbles over keeps no other out", func(t *testing.T) {
		c := r.client(t, inAudience)
		_, err := c.Introspect(t.Context(), "e30.e30.e30")
		wantUnavailable(t, err, "status 400")
		if _, err := c.Introspect(t.Context(), tokens.AccessToken); err != nil {
			t.Error(err)
		}
	})

	t.Run("strings that are no tokens are inactive", func(t *testing.T) {
		c := r.client(t, inAudience)
		for _, raw := range []string{"", "opaque", "a.b.c", "a.b.c.d.e", "\x00", strings.Repeat("a", 16<<10)} {
			if _, err := c.Introspect(t.Context(), raw); !errors.Is(err, ErrInactive) {
				t.Errorf("%.10q: %v", raw, err)
			}
		}
	})

	t.Run("after logout a token is inactive", func(t *testing.T) {
		if err := r.Logout(t.Context(), r.alice); err != nil {
			t.Fatal(err)
		}
		if _, err := r.client(t, inAudience).Introspect(t.Context(), tokens.AccessToken); !errors.Is(err, ErrInactive) {
			t.Errorf("got %v", err)
		}
	})
}

func (r *realm) privateKeys(t *testing.T, raw string) {
	rsaKey, p256, _, edKey := newKeys(t)
	r.createKeyClient(t, "with keys", map[string]string{"use.jwks.string": "true", "jwks.string": jwksOf(t,
		jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "rsa", Use: "sig"},
		jose.JSONWebKey{Key: p256.Public(), KeyID: "ec", Use: "sig"},
		jose.JSONWebKey{Key: edKey.Public(), KeyID: "ed", Use: "sig"})})
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, rsaKey.Public(), rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	r.createKeyClient(t, "with certificate", map[string]string{
		"jwt.credential.certificate": base64.StdEncoding.EncodeToString(certificate),
	})
	inTime := func(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(d) } }
	for name, test := range map[string]struct {
		cfg      Config
		accepted bool
	}{
		"RS256":                      {Config{PrivateKey: pemOf(t, rsaKey), KeyID: "rsa"}, true},
		"PS256":                      {Config{PrivateKey: pemOf(t, rsaKey), KeyID: "rsa", Algorithm: "PS256"}, true},
		"ES256":                      {Config{PrivateKey: pemOf(t, p256), KeyID: "ec"}, true},
		"EdDSA":                      {Config{PrivateKey: pemOf(t, edKey), KeyID: "ed"}, true},
		"RS256 without key id":       {Config{PrivateKey: pemOf(t, rsaKey)}, true},
		"ES256 without key id":       {Config{PrivateKey: pemOf(t, p256)}, true},
		"EdDSA without key id":       {Config{PrivateKey: pemOf(t, edKey)}, true},
		"a certificate's key":        {Config{ClientID: "with certificate", PrivateKey: pemOf(t, rsaKey)}, true},
		"a clock 10 s ahead":         {Config{PrivateKey: pemOf(t, edKey), Now: inTime(10 * time.Second)}, true},
		"a clock 30 s behind":        {Config{PrivateKey: pemOf(t, edKey), Now: inTime(-30 * time.Second)}, true},
		"a clock far ahead":          {Config{PrivateKey: pemOf(t, edKey), Now: inTime(time.Minute)}, false},
		"a clock far behind":         {Config{PrivateKey: pemOf(t, edKey), Now: inTime(-2 * time.Minute)}, false},
		"another key":                {Config{PrivateKey: pemOf(t, mustP256(t)), KeyID: "ec"}, false},
		"a key id that is not there": {Config{PrivateKey: pemOf(t, edKey), KeyID: "none"}, false},
		"a client with a secret":     {Config{ClientID: oddID, PrivateKey: pemOf(t, edKey)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if test.cfg.ClientID == "" {
				test.cfg.ClientID = "with keys"
			}
			c := r.client(t, test.cfg)
			if !test.accepted {
				_, err := c.Introspect(t.Context(), raw)
				wantUnavailable(t, err, "client authentication failed")
				return
			}
			for range 2 { // Keycloak takes no assertion twice
				if _, err := c.Introspect(t.Context(), raw); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func claimsOf(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var claims map[string]any
	if err := json.Unmarshal(text, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func payload(t *testing.T, compact string) map[string]any {
	t.Helper()
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		t.Fatalf("a token of %d parts", len(parts))
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	return claimsOf(t, text)
}

func pemOf(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func jwksOf(t *testing.T, keys ...jose.JSONWebKey) string {
	t.Helper()
	return marshal(t, jose.JSONWebKeySet{Keys: keys})
}
