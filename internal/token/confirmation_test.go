package token

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// A thumbprint as RFC 9449 §6.1 has it, and another.
const (
	thumbprintOne = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
	thumbprintTwo = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
)

func TestBoundTokensAreAcceptedOnlyIfTheProofIsVerified(t *testing.T) {
	type object = map[string]any
	both := BindingDPoP | BindingMTLS
	jkt, x5t := object{"jkt": thumbprintOne}, object{"x5t#S256": thumbprintTwo}
	for name, test := range map[string]struct {
		bound Binding
		typ   string
		cnf   any
		want  Reason
	}{
		"PP-001 a DPoP token where nothing is verified":           {0, "DPoP", jkt, ReasonBound},
		"PP-001 a DPoP token where only mTLS is":                  {BindingMTLS, "DPoP", jkt, ReasonBound},
		"PP-001 a DPoP token of type Bearer, likewise":            {0, "Bearer", jkt, ReasonBound},
		"PP-001 a DPoP token where DPoP is":                       {BindingDPoP, "DPoP", jkt, ""},
		"PP-001 a DPoP token of type Bearer where DPoP is":        {BindingDPoP, "Bearer", jkt, ""},
		"PP-003 an mTLS token where nothing is verified":          {0, "Bearer", x5t, ReasonBound},
		"PP-003 an mTLS token where only DPoP is":                 {BindingDPoP, "Bearer", x5t, ReasonBound},
		"PP-003 an mTLS token where mTLS is":                      {BindingMTLS, "Bearer", x5t, ""},
		"PP-003 a thumbprint that is none":                        {both, "Bearer", object{"x5t#S256": "abc"}, ReasonBound},
		"an mTLS token of type DPoP":                              {both, "DPoP", x5t, ReasonTokenType},
		"both where both are":                                     {both, "DPoP", object{"jkt": thumbprintOne, "x5t#S256": thumbprintTwo}, ""},
		"both where only DPoP is":                                 {BindingDPoP, "DPoP", object{"jkt": thumbprintOne, "x5t#S256": thumbprintTwo}, ReasonBound},
		"both where only mTLS is":                                 {BindingMTLS, "Bearer", object{"jkt": thumbprintOne, "x5t#S256": thumbprintTwo}, ReasonBound},
		"type DPoP in other letters":                              {both, "dpop", jkt, ReasonTokenType},
		"type ID and bound":                                       {both, "ID", jkt, ReasonTokenType},
		"PP-006 cnf is a string":                                  {both, "Bearer", "x", ReasonBound},
		"PP-006 cnf is a thumbprint":                              {both, "Bearer", thumbprintOne, ReasonBound},
		"PP-006 cnf is empty":                                     {both, "Bearer", object{}, ReasonBound},
		"PP-006 cnf is null":                                      {both, "Bearer", nil, ReasonBound},
		"PP-006 cnf is a list":                                    {both, "Bearer", []any{jkt}, ReasonBound},
		"Keycloak 26.7 says how the key is proven":                {both, "DPoP", object{"jkt": thumbprintOne, "kc-jkt-type": "DPoP"}, ""},
		"it says so of another way":                               {both, "DPoP", object{"jkt": thumbprintOne, "kc-jkt-type": "attestation"}, ReasonBound},
		"it says so of no key":                                    {both, "Bearer", object{"kc-jkt-type": "DPoP"}, ReasonBound},
		"PP-006 cnf is false":                                     {both, "Bearer", false, ReasonBound},
		"a method that is not known":                              {both, "Bearer", object{"jwk": object{}}, ReasonBound},
		"a method that is not known beside one that is":           {both, "DPoP", object{"jkt": thumbprintOne, "kid": "x"}, ReasonBound},
		"a method in other letters":                               {both, "DPoP", object{"JKT": thumbprintOne}, ReasonBound},
		"a method in two kinds of letters":                        {both, "DPoP", object{"jkt": thumbprintOne, "JKT": thumbprintTwo}, ReasonBound},
		"a certificate's thumbprint by another hash":              {both, "Bearer", object{"x5t": thumbprintOne}, ReasonBound},
		"a thumbprint that is null":                               {both, "DPoP", object{"jkt": nil}, ReasonBound},
		"a thumbprint that is empty":                              {both, "DPoP", object{"jkt": ""}, ReasonBound},
		"a thumbprint that is a list":                             {both, "DPoP", object{"jkt": []any{thumbprintOne}}, ReasonBound},
		"a thumbprint of 31 bytes":                                {both, "DPoP", object{"jkt": base64.RawURLEncoding.EncodeToString(make([]byte, 31))}, ReasonBound},
		"a thumbprint of 33 bytes":                                {both, "DPoP", object{"jkt": base64.RawURLEncoding.EncodeToString(make([]byte, 33))}, ReasonBound},
		"a thumbprint with padding":                               {both, "DPoP", object{"jkt": thumbprintOne + "="}, ReasonBound},
		"a thumbprint in the other alphabet":                      {both, "DPoP", object{"jkt": strings.ReplaceAll(thumbprintOne, "-", "+")}, ReasonBound},
		"a thumbprint with spare bits":                            {both, "DPoP", object{"jkt": thumbprintOne[:42] + "J"}, ReasonBound},
		"a thumbprint with a line break in the place of a letter": {both, "DPoP", object{"jkt": thumbprintOne[:42] + "\n"}, ReasonBound},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, func(_ *KeySetConfig, c *Config) { c.Bound = test.bound })
			raw := s.realm.AccessToken(s.alice, kctest.Claim("typ", test.typ), kctest.Claim("cnf", test.cnf))
			tok, err := s.verifier.Verify(t.Context(), raw)
			if ReasonOf(err) != test.want || (err == nil) != (test.want == "") {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if err != nil {
				if n := s.realm.Requests(kctest.Discovery); n != 0 {
					t.Errorf("the issuer was asked %d times for what needs no key", n)
				}
				return
			}
			cnf, _ := test.cnf.(object)
			want := Confirmation{}
			want.KeyThumbprint, _ = cnf["jkt"].(string)
			want.CertificateThumbprint, _ = cnf["x5t#S256"].(string)
			if tok.Confirmation != want || want.IsZero() || tok.Confirmation.IsZero() || tok.Type != test.typ {
				t.Errorf("it says %+v, type %q", tok.Confirmation, tok.Type)
			}
		})
	}
}

func TestATokenOfTypeDPoPThatIsBoundToNothing(t *testing.T) {
	s := newStage(t, func(_ *KeySetConfig, c *Config) { c.Bound = BindingDPoP | BindingMTLS })
	s.want(t, s.realm.AccessToken(s.alice, kctest.Claim("typ", "DPoP")), ReasonTokenType, "without cnf")
	tok, err := s.verifier.Verify(t.Context(), s.realm.AccessToken(s.alice))
	if err != nil || !tok.Confirmation.IsZero() {
		t.Errorf("a plain one: %v", err)
	}
}

// PP-001, PP-003: seen tokens are shared with handlers that verify other proofs.
func testASeenBoundTokenIsLookedAtAgainByEachHandler(t *testing.T) {
	s := newSeenStage(t, func(_ *KeySetConfig, c *Config) { c.Bound = BindingDPoP | BindingMTLS })
	for kind, test := range map[string]struct {
		raw     string
		enough  Binding
		another Binding
	}{
		"DPoP": {s.realm.AccessToken(s.alice, kctest.Claim("typ", "DPoP"),
			kctest.Claim("cnf", map[string]any{"jkt": thumbprintOne})), BindingDPoP, BindingMTLS},
		"mTLS": {s.realm.AccessToken(s.alice,
			kctest.Claim("cnf", map[string]any{"x5t#S256": thumbprintOne})), BindingMTLS, BindingDPoP},
	} {
		t.Run(kind, func(t *testing.T) {
			wantVerified(t, s.issuers, test.raw, "", false, "first")
			for _, here := range []struct {
				bound Binding
				want  Reason
			}{{0, ReasonBound}, {test.another, ReasonBound}, {test.enough, ""}} {
				v, err := New(Config{Issuer: s.realm.Issuer(), Keys: s.keys, Now: s.now, Bound: here.bound})
				if err != nil {
					t.Fatal(err)
				}
				issuers, err := NewIssuers(s.seen, v)
				if err != nil {
					t.Fatal(err)
				}
				wantVerified(t, issuers, test.raw, here.want, here.want == "", "elsewhere")
			}
			wantVerified(t, s.issuers, test.raw, "", true, "the first, still")
		})
	}
}

func testTheDPoPTokenOfARealKeycloak(t *testing.T) {
	answer := decodeFile[keycloakFile](t, "keycloak", "token-dpop.json")
	v, _ := verifierOf(t, keycloakIssuer, readFile(t, "keycloak", "jwks-after-rotation.json"),
		time.Unix(answer.Access.Decoded.Payload.Issued+1, 0), func(c *Config) { c.Bound = BindingDPoP })
	tok, err := v.Verify(t.Context(), answer.Access.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if tok.Type != "DPoP" || len(tok.Confirmation.KeyThumbprint) != 43 || tok.Confirmation.CertificateThumbprint != "" {
		t.Errorf("type %q, %+v", tok.Type, tok.Confirmation)
	}
}
