package token

import (
	"path/filepath"
	"slices"
	"testing"
	"time"
)

type keycloakToken struct {
	Decoded struct {
		Payload struct {
			Issuer  string `json:"iss"`
			Subject string `json:"sub"`
			Issued  int64  `json:"iat"`
		} `json:"payload"`
	} `json:"decoded"`
	Raw string `json:"raw"`
}

// keycloakFile is what Keycloak 26.4.0 answered.
type keycloakFile struct {
	Access  keycloakToken `json:"access_token"`
	ID      keycloakToken `json:"id_token"`
	Refresh keycloakToken `json:"refresh_token"`
}

const keycloakIssuer = "http://127.0.0.1:18080/realms/sec"

func TestTokensOfARealKeycloak(t *testing.T) {
	refused := map[string]Reason{
		"token-dpop.json":               ReasonBound,
		"token-frontend-url.json":       ReasonIssuer,
		"token-hs256.json":              ReasonAlgorithm,
		"token-issuer-by-host.json":     ReasonIssuer,
		"token-lightweight-org.json":    ReasonMissingClaim, // sub
		"token-lightweight.json":        ReasonMissingClaim,
		"token-mapper-SUB-claim.json":   ReasonAmbiguous,
		"token-no-basic-scope.json":     ReasonMissingClaim,
		"token-rs512.json":              ReasonAlgorithm,
		"token-claims-injection.json":   "", // claims are data
		"token-fullscope-off.json":      "", // no aud, and none asked for
		"token-big-150-roles.json":      "",
		"token-client-credentials.json": "",
	}
	files, err := filepath.Glob("testdata/keycloak/token-*.json")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	keySet := readFile(t, "keycloak", "jwks-after-rotation.json")
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			answer := decodeFile[keycloakFile](t, "keycloak", name)
			payload := answer.Access.Decoded.Payload
			v, _ := verifierOf(t, keycloakIssuer, keySet, time.Unix(payload.Issued+1, 0))

			tok, err := v.Verify(t.Context(), answer.Access.Raw)
			if got, want := ReasonOf(err), refused[name]; got != want {
				t.Fatalf("access token: %v, want reason %q", err, want)
			}
			if err == nil && (tok.Subject != payload.Subject || tok.Issuer != payload.Issuer) {
				t.Errorf("the token is of %q at %q", tok.Subject, tok.Issuer)
			}
			for kind, other := range map[string]string{"ID token": answer.ID.Raw, "refresh token": answer.Refresh.Raw} {
				if other == "" {
					continue
				}
				if _, err := v.Verify(t.Context(), other); ReasonOf(err) == "" {
					t.Errorf("%s: %v", kind, err)
				}
			}
		})
	}
}

func TestFactsOfARealToken(t *testing.T) {
	answer := decodeFile[keycloakFile](t, "keycloak", "token-password-alice.json")
	v, _ := verifierOf(t, keycloakIssuer, readFile(t, "keycloak", "jwks-all-algs.json"),
		time.Unix(1795251925, 0), func(c *Config) { c.Audiences = []string{"account"} })
	tok, err := v.Verify(t.Context(), answer.Access.Raw)
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string][2]string{
		"sub":      {tok.Subject, "712f4569-fc6e-4ddb-8d55-8490bd9ac613"},
		"sid":      {tok.SessionID, "4861bdf6-194d-d819-93bd-765541a55db5"},
		"jti":      {tok.ID, "onrtro:5e99bc18-9047-1553-af94-5f3681e9ba09"},
		"azp":      {tok.AuthorizedParty, "app"},
		"username": {tok.Username, "alice"},
		"email":    {tok.Email, "alice@example.test"},
		"name":     {tok.Name, "Alice Test"},
		"acr":      {tok.ACR, "1"},
		"typ":      {tok.Type, "Bearer"},
		"aud":      {Text(anys(tok.Audience)), `["account"]`},
		"scope":    {Text(anys(tok.Scope)), `["openid","email","profile"]`},
		"roles":    {Text(anys(tok.RealmRoles)), `["offline_access","uma_authorization","default-roles-sec"]`},
		"client":   {Text(anys(tok.ClientRoles["account"])), `["manage-account","manage-account-links","view-profile"]`},
		"exp":      {tok.Expiry.UTC().Format(time.RFC3339), "2026-11-21T09:10:25Z"},
		"alg":      {tok.Algorithm, "RS256"},
	} {
		if got[0] != got[1] {
			t.Errorf("%s is %q, want %q", what, got[0], got[1])
		}
	}
	if !tok.EmailVerified {
		t.Error("the address is not verified")
	}
	if !slices.Contains(tok.Scope, "email") || slices.Contains(tok.Scope, "mail") {
		t.Errorf("scopes: %q", tok.Scope)
	}
}

func anys(texts []string) []any {
	all := make([]any, len(texts))
	for i, text := range texts {
		all[i] = text
	}
	return all
}

// UMA's tokens are access tokens for the resource server whose permissions they hold:
// good where that one is an audience, and nowhere else.
func TestAnUMATokenOfARealKeycloak(t *testing.T) {
	answer := decodeFile[keycloakFile](t, "keycloak", "token-uma-rpt.json")
	keySet := readFile(t, "keycloak", "jwks-after-rotation.json")
	now := time.Unix(answer.Access.Decoded.Payload.Issued+1, 0)
	anybody, _ := verifierOf(t, keycloakIssuer, keySet, now)
	tok, err := anybody.Verify(t.Context(), answer.Access.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := tok.Claim("authorization.permissions"); !ok || len(tok.Audience) == 0 {
		t.Fatalf("no UMA token: aud is %q", tok.Audience)
	}
	for name, test := range map[string]struct {
		audience, party string
		want            Reason
	}{
		"CL-006 its resource server": {tok.Audience[0], tok.AuthorizedParty, ""},
		"CL-006 another audience":    {"another", tok.AuthorizedParty, ReasonAudience},
		"CL-006 another client":      {tok.Audience[0], "another", ReasonAuthorizedParty},
	} {
		t.Run(name, func(t *testing.T) {
			v, _ := verifierOf(t, keycloakIssuer, keySet, now, func(c *Config) {
				c.Audiences, c.AuthorizedParties = []string{test.audience}, []string{test.party}
			})
			if _, err := v.Verify(t.Context(), answer.Access.Raw); ReasonOf(err) != test.want {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// A key that was disabled leaves the key set, and its tokens are refused.
func TestTokensOfADisabledKey(t *testing.T) {
	answer := decodeFile[keycloakFile](t, "keycloak", "token-password-alice.json")
	v, _ := verifierOf(t, keycloakIssuer, readFile(t, "keycloak", "jwks-old-key-disabled.json"), time.Unix(1795251925, 0))
	if _, err := v.Verify(t.Context(), answer.Access.Raw); ReasonOf(err) != ReasonUnknownKey {
		t.Errorf("got %v", err)
	}
}
