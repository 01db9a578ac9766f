package token

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

func TestAnswersAboutTokensAreReadStrictly(t *testing.T) {
	type object = map[string]any
	for name, test := range map[string]struct {
		change object
		want   Reason
		opaque Reason // for an opaque token, where that is another
	}{
		"nothing changed":                      {nil, "", ""},
		"aud is a list":                        {object{"aud": []string{"account", "api"}}, "", ""},
		"aud is another":                       {object{"aud": "account"}, ReasonAudience, ReasonAudience},
		"aud is absent":                        {object{"aud": drop}, ReasonAudience, ReasonAudience},
		"KC-017 not active":                    {object{"active": false}, ReasonInactive, ReasonInactive},
		"active is absent":                     {object{"active": drop}, ReasonIntrospection, ReasonIntrospection},
		"active is text":                       {object{"active": "true"}, ReasonIntrospection, ReasonIntrospection},
		"active is 1":                          {object{"active": 1}, ReasonIntrospection, ReasonIntrospection},
		"Active beside active":                 {object{"Active": true}, ReasonAmbiguous, ReasonAmbiguous},
		"JS-027 SUB beside sub":                {object{"SUB": "mallory"}, ReasonAmbiguous, ReasonAmbiguous},
		"TOKEN_TYPE beside token_type":         {object{"TOKEN_TYPE": "x"}, ReasonAmbiguous, ReasonAmbiguous},
		"iss is another":                       {object{"iss": "https://other.test"}, ReasonIssuer, ReasonIssuer},
		"iss is absent":                        {object{"iss": drop}, ReasonIssuer, ReasonIssuer},
		"sub is absent":                        {object{"sub": drop}, ReasonMissingClaim, ReasonMissingClaim},
		"sub is a number":                      {object{"sub": 1}, ReasonClaimType, ReasonClaimType},
		"exp is another":                       {object{"exp": 1795255001}, ReasonAmbiguous, ""},
		"exp is absent":                        {object{"exp": drop}, ReasonMissingClaim, ReasonMissingClaim},
		"exp is text":                          {object{"exp": "1"}, ReasonClaimType, ReasonClaimType},
		"exp has passed":                       {object{"exp": 1795255000}, ReasonAmbiguous, ReasonExpired},
		"iat is absent":                        {object{"iat": drop}, ReasonMissingClaim, ReasonMissingClaim},
		"iat is another":                       {object{"iat": 1795254990}, "", ""},
		"nbf is to come":                       {object{"nbf": 1795255001}, ReasonNotYetValid, ReasonNotYetValid},
		"jti is another":                       {object{"jti": "x"}, ReasonAmbiguous, ""},
		"jti is absent":                        {object{"jti": drop}, "", ""},
		"sid is another":                       {object{"sid": "x"}, ReasonAmbiguous, ""},
		"sid is absent":                        {object{"sid": drop}, "", ""},
		"azp is another":                       {object{"azp": "x"}, ReasonAmbiguous, ReasonAuthorizedParty},
		"azp is absent":                        {object{"azp": drop}, "", ReasonAuthorizedParty},
		"KC-019 an ID token":                   {object{"typ": "ID", "token_type": drop}, ReasonTokenType, ReasonTokenType},
		"KC-019 an ID token that says Bearer":  {object{"typ": "ID"}, ReasonTokenType, ReasonTokenType},
		"KC-019 a refresh token":               {object{"typ": "Refresh", "token_type": "Refresh"}, ReasonTokenType, ReasonTokenType},
		"KC-019 an offline token":              {object{"typ": "Offline"}, ReasonTokenType, ReasonTokenType},
		"typ and token_type are absent":        {object{"typ": drop, "token_type": drop}, ReasonTokenType, ReasonTokenType},
		"typ is null":                          {object{"typ": nil}, ReasonTokenType, ReasonTokenType},
		"typ alone":                            {object{"token_type": drop}, "", ""},
		"token_type alone":                     {object{"typ": drop}, "", ""},
		"token_type alone, in small letters":   {object{"typ": drop, "token_type": "bearer"}, "", ""},
		"token_type contradicts typ":           {object{"token_type": "Refresh"}, ReasonTokenType, ReasonTokenType},
		"token_type is a list":                 {object{"token_type": []string{"Bearer"}}, ReasonTokenType, ReasonTokenType},
		"DPoP without key":                     {object{"typ": "DPoP"}, ReasonTokenType, ReasonTokenType},
		"token_type DPoP without key":          {object{"token_type": "DPoP"}, ReasonTokenType, ReasonTokenType},
		"PP-006 cnf is null":                   {object{"cnf": nil}, ReasonBound, ReasonBound},
		"PP-001 bound by DPoP":                 {object{"cnf": object{"jkt": thumbprintOne}}, ReasonBound, ReasonBound},
		"a number out of the range of numbers": {object{"x": jsontext.Value("1e400")}, ReasonClaimType, ReasonClaimType},
	} {
		t.Run(name, func(t *testing.T) {
			for kind, want := range map[string]Reason{"lightweight": test.want, "opaque": test.opaque} {
				s := newIntrospected(t, func(c *Config) { c.AuthorizedParties = []string{"app"} })
				s.asked.says(s.changed(test.change))
				raw := s.light
				if kind == "opaque" {
					raw = "an-opaque-token+/~_="
				}
				tok := wantVerified(t, s.issuers, raw, want, false, kind)
				if want != "" {
					continue
				}
				if tok.Subject != s.alice.ID || tok.Type != "Bearer" || !tok.Introspected() || (tok.key == nil) != (kind == "opaque") {
					t.Errorf("%s: got %+v", kind, tok)
				}
				if kind == "lightweight" && (tok.SessionID != "a-session" || tok.ID != "onltro:1" || !tok.IssuedAt.Equal(s.now())) {
					t.Errorf("%s: what is signed got lost: %+v", kind, tok)
				}
			}
		})
	}
}

func TestWhatIsNoAnswerIsAnOutage(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":            "",
		"a page":             "<html>",
		"a list":             "[]",
		"null":               "null",
		"two objects":        `{"active":true} {"active":true}`,
		"a signed answer":    "e30.e30.e30",
		"a broken object":    `{"active":true`,
		"not UTF-8":          "{\"active\":true,\"x\":\"\xff\"}",
		"more than 256 KiB":  `{"active":true,"x":"` + strings.Repeat("x", maxAnswer) + `"}`,
		"an empty object":    "{}",
		"an error":           `{"error":"invalid_request"}`,
		"active twice":       `{"active":false,"active":true}`,
		"space in the front": " \n",
	} {
		t.Run(name, func(t *testing.T) {
			s := newIntrospected(t)
			s.asked.saysText(text)
			want := ReasonIntrospection
			if name == "active twice" {
				want = ReasonAmbiguous
			}
			wantVerified(t, s.issuers, s.light, want, false, name)
			wantVerified(t, s.issuers, "opaque", want, false, name)
		})
	}
	t.Run("space around an answer does no harm", func(t *testing.T) {
		s := newIntrospected(t)
		text, err := json.Marshal(s.claims)
		if err != nil {
			t.Fatal(err)
		}
		s.asked.saysText("\r\n" + string(text) + "\n")
		wantVerified(t, s.issuers, s.light, "", false, "with space")
	})
}

func TestABoundLightweightTokenStaysBound(t *testing.T) {
	jkt := map[string]any{"jkt": thumbprintOne}
	dpop := func(c *Config) { c.Bound = BindingDPoP }
	for name, test := range map[string]struct {
		own    []kctest.Option
		answer map[string]any
		want   Reason
	}{
		"both say so":        {[]kctest.Option{kctest.Claim("typ", "DPoP"), kctest.Claim("cnf", jkt)}, map[string]any{"typ": "DPoP", "token_type": "DPoP", "cnf": jkt}, ""},
		"the token alone":    {[]kctest.Option{kctest.Claim("typ", "DPoP"), kctest.Claim("cnf", jkt)}, nil, ""},
		"the answer alone":   {nil, map[string]any{"token_type": "dpop", "cnf": jkt}, ""},
		"to different keys":  {[]kctest.Option{kctest.Claim("cnf", jkt)}, map[string]any{"cnf": map[string]any{"jkt": thumbprintTwo}}, ReasonAmbiguous},
		"also a certificate": {[]kctest.Option{kctest.Claim("cnf", jkt)}, map[string]any{"cnf": map[string]any{"x5t#S256": thumbprintTwo}}, ReasonBound},
	} {
		t.Run(name, func(t *testing.T) {
			s := newIntrospected(t, dpop)
			s.asked.says(s.changed(test.answer))
			tok := wantVerified(t, s.issuers, s.lightweight(test.own...), test.want, false, name)
			if test.want == "" && (tok.Confirmation.KeyThumbprint != thumbprintOne || tok.Type != "DPoP") {
				t.Errorf("%+v, %q", tok.Confirmation, tok.Type)
			}
		})
	}
}

// KC-017 with the answer of a real Keycloak about a lightweight token of its own.
func testTheAnswerOfARealKeycloak(t *testing.T) {
	answer := readFile(t, "keycloak", "introspection-lightweight.json")
	said := decodeFile[struct {
		Issued  int64  `json:"iat"`
		Expiry  int64  `json:"exp"`
		ID      string `json:"jti"`
		Session string `json:"sid"`
		Subject string `json:"sub"`
	}](t, "keycloak", "introspection-lightweight.json")
	key := kctest.NewKey("ES256")
	set, err := json.Marshal(map[string]any{"keys": []any{key.JWK()}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(said.Issued+1, 0)
	issuer := new(asked)
	issuer.saysText(string(answer))
	in := introspectionOf(t, IntrospectionConfig{Issuer: keycloakIssuer, Introspector: issuer, Now: func() time.Time { return now }})
	v, _ := verifierOf(t, keycloakIssuer, set, now, func(c *Config) {
		c.Introspection, c.Audiences = in, []string{"account"}
	})
	header := fmt.Appendf(nil, `{"alg":"ES256","typ":"JWT","kid":%q}`, key.ID)
	payload := fmt.Appendf(nil, `{"exp":%d,"iat":%d,"jti":%q,"iss":%q,"typ":"Bearer","azp":"app-lw","sid":%q,"scope":"openid email profile"}`,
		said.Expiry, said.Issued, said.ID, keycloakIssuer, said.Session)
	tok, err := v.Verify(t.Context(), key.Sign("ES256", header, payload))
	if err != nil || tok.Subject != said.Subject || tok.Username != "alice" || !tok.EmailVerified {
		t.Errorf("got %+v, %v", tok, err)
	}
}
