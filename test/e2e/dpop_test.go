package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// dpopClient is a client with a key that its tokens are bound to.
type dpopClient struct{ key *kctest.Key }

// proof returns a proof for one request, and for a token unless that is "".
func (c dpopClient) proof(t *testing.T, method, address, token string) string {
	t.Helper()
	jwk := c.key.JWK()
	public := map[string]any{"kty": jwk["kty"], "crv": jwk["crv"], "x": jwk["x"], "y": jwk["y"]}
	claims := map[string]any{"jti": rand.Text(), "htm": method, "htu": address, "iat": time.Now().Unix()}
	if token != "" {
		digest := sha256.Sum256([]byte(token))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(digest[:])
	}
	header, err := json.Marshal(map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": public})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return c.key.Sign("ES256", header, payload)
}

func (c dpopClient) logIn(t *testing.T, w *world, user string) string {
	t.Helper()
	address := w.realm.Issuer() + "/protocol/openid-connect/token"
	form := url.Values{
		"grant_type": {"password"}, "client_id": {frontend.ID}, "username": {user}, "password": {password}, "scope": {"openid"},
	}
	var tokens struct {
		servers.KeycloakTokens
		Type string `json:"token_type"`
	}
	if err := post(t.Context(), address, form, map[string]string{"DPoP": c.proof(t, http.MethodPost, address, "")}, &tokens); err != nil {
		t.Fatal(err)
	}
	if tokens.Type != "DPoP" {
		t.Fatalf("Keycloak gave a token of type %q", tokens.Type)
	}
	return tokens.AccessToken
}

// Keycloak binds a token to whoever sends a proof; no one else can use it, at
// any node.
func TestDPoPBoundTokens(t *testing.T) {
	w := newWorld(t)
	accepted, required, off := w.newCaddy(t), w.newCaddy(t), w.newCaddy(t)
	accepted.LoadCaddyfile(t, w.variant(accepted, "", "dpop accepted {\norigin http://app.example.com\n}"))
	required.LoadCaddyfile(t, w.variant(required, "", "dpop required {\norigin http://app.example.com\n}"))
	off.LoadCaddyfile(t, w.variant(off, "", ""))
	client, thief := dpopClient{kctest.NewKey("ES256")}, dpopClient{kctest.NewKey("ES256")}
	token := client.logIn(t, w, "alice")
	plain := w.token(t, "alice")
	const page = "http://app.example.com/page"
	with := func(scheme, token, proof string) []change {
		return []change{header("Authorization", scheme+" "+token), header("DPoP", proof), tenant("acme")}
	}

	proof := client.proof(t, http.MethodGet, page, token)
	if a := accepted.get(t, "/page", with("DPoP", token, proof)...); a.status != http.StatusOK || a.seen.Header.Get("X-User-ID") != w.ids["alice"] {
		t.Fatalf("alice gets %v", a)
	}
	for name, tc := range map[string]struct {
		site      *site
		changes   []change
		status    int
		challenge string
	}{
		"at a node that requires it":                                {required, with("DPoP", token, client.proof(t, http.MethodGet, page, token)), 200, ""},
		"PP-005 the proof again, at the same node":                  {accepted, with("DPoP", token, proof), 401, "invalid_dpop_proof"},
		"PP-005 the proof again, at another node":                   {required, with("DPoP", token, proof), 401, "invalid_dpop_proof"},
		"PP-005 another's proof":                                    {accepted, with("DPoP", token, thief.proof(t, http.MethodGet, page, token)), 401, "invalid_dpop_proof"},
		"PP-001 without a proof, as Bearer":                         {accepted, []change{bearer(token), tenant("acme")}, 401, "invalid_token"},
		"PP-001 as Bearer where it is off":                          {off, []change{bearer(token), tenant("acme")}, 401, "invalid_token"},
		"PP-004 as DPoP where it is off":                            {off, with("DPoP", token, client.proof(t, http.MethodGet, page, token)), 401, "Bearer"},
		"a plain token where DPoP is accepted":                      {accepted, []change{bearer(plain), tenant("acme")}, 200, ""},
		"a plain token where DPoP is required":                      {required, []change{bearer(plain), tenant("acme")}, 401, "DPoP"},
		"a plain token where DPoP is required, with a proof for it": {required, with("DPoP", plain, client.proof(t, http.MethodGet, page, plain)), 401, "invalid_token"},
	} {
		t.Run(name, func(t *testing.T) {
			a := tc.site.get(t, "/page", tc.changes...)
			challenges := strings.Join(a.header.Values("WWW-Authenticate"), ", ")
			if a.status != tc.status || !strings.Contains(challenges, tc.challenge) {
				t.Errorf("gets %v with challenges %q, want %d with %q", a, challenges, tc.status, tc.challenge)
			}
		})
	}
}
