package token

import (
	"context"
	"encoding/base64"
	stdjson "encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

func TestClaimsOfASignedToken(t *testing.T) {
	s := newStage(t, func(_ *KeySetConfig, c *Config) {
		c.Audiences = []string{"api", "other"}
		c.AuthorizedParties = []string{"app", "cli"}
		c.Leeway = 10 * time.Second
	})
	now := s.now().Unix()
	set, drop := kctest.Claim, kctest.Without
	for name, test := range map[string]struct {
		change []kctest.Option
		want   Reason
	}{
		"nothing changed":               {nil, ""},
		"aud is a list with ours":       {[]kctest.Option{set("aud", []string{"account", "other"})}, ""},
		"a number beyond a float64":     {[]kctest.Option{set("x", stdjson.RawMessage(`{"y":[1,"\\\"",-1e400]}`))}, ReasonClaimType},
		"a number of 400 digits":        {[]kctest.Option{set("x", stdjson.RawMessage(strings.Repeat("9", 400)))}, ReasonClaimType},
		"numbers that a float64 holds":  {[]kctest.Option{set("x", stdjson.RawMessage(`{"1e400":["-1e400","\"1e400",1e308,-1e-400,0.1]}`))}, ""},
		"nbf is minus zero":             {[]kctest.Option{set("nbf", stdjson.RawMessage("-0"))}, ReasonClaimType},
		"nbf is zero":                   {[]kctest.Option{set("nbf", 0)}, ""},
		"header with such a number":     {[]kctest.Option{kctest.Header("x", stdjson.RawMessage("1e400"))}, ReasonMalformed},
		"AK-015 header brings a key":    {[]kctest.Option{kctest.Header("jwk", s.realm.ActiveKey("ES256").JWK())}, ReasonUnknownKey},
		"header brings no key at all":   {[]kctest.Option{kctest.Header("jwk", map[string]any{})}, ReasonUnknownKey},
		"CL-021 client_id of another":   {[]kctest.Option{set("azp", "cli"), set("client_id", "evil")}, ""}, // azp is what mappers say
		"KC-018 before a not-before":    {[]kctest.Option{set("iat", now-3600)}, ""},                        // no token tells of a realm's
		"aud is empty":                  {[]kctest.Option{set("aud", []string{})}, ReasonAudience},
		"aud is null":                   {[]kctest.Option{set("aud", nil)}, ReasonAudience},
		"aud is an object":              {[]kctest.Option{set("aud", map[string]any{"api": true})}, ReasonClaimType},
		"aud holds null":                {[]kctest.Option{set("aud", []any{"api", nil})}, ReasonClaimType},
		"aud holds a number":            {[]kctest.Option{set("aud", []any{"api", 1})}, ReasonClaimType},
		"aud differs in case":           {[]kctest.Option{set("aud", "API")}, ReasonAudience},
		"azp is another client":         {[]kctest.Option{set("azp", "evil")}, ReasonAuthorizedParty}, // CL-020
		"azp is absent":                 {[]kctest.Option{drop("azp")}, ReasonAuthorizedParty},
		"azp is a list":                 {[]kctest.Option{set("azp", []string{"app"})}, ReasonClaimType},
		"sub is one printable letter":   {[]kctest.Option{set("sub", "x")}, ""},
		"sub has 255 bytes":             {[]kctest.Option{set("sub", strings.Repeat("x", 255))}, ""},
		"sub has 256 bytes":             {[]kctest.Option{set("sub", strings.Repeat("x", 256))}, ReasonClaimType},
		"sub is absent":                 {[]kctest.Option{drop("sub")}, ReasonMissingClaim},
		"sub has a no-break space":      {[]kctest.Option{set("sub", "a\u00a0b")}, ReasonClaimType},
		"sub turns the writing":         {[]kctest.Option{set("sub", "a\u202eb")}, ReasonClaimType},
		"sid is a number":               {[]kctest.Option{set("sid", 1)}, ReasonClaimType},
		"sid has a line break":          {[]kctest.Option{set("sid", "a\nb")}, ReasonClaimType},
		"sid is absent":                 {[]kctest.Option{drop("sid")}, ""},
		"scope is a list":               {[]kctest.Option{set("scope", []string{"openid"})}, ReasonClaimType},
		"acr is a number":               {[]kctest.Option{set("acr", 1)}, ReasonClaimType},
		"jti is null":                   {[]kctest.Option{set("jti", nil)}, ReasonClaimType},
		"name is a number":              {[]kctest.Option{set("name", 1)}, ""},
		"groups is a string":            {[]kctest.Option{set("groups", "staff")}, ""},
		"realm_access is a list":        {[]kctest.Option{set("realm_access", []string{"admin"})}, ""},
		"resource_access is a string":   {[]kctest.Option{set("resource_access", "admin")}, ""},
		"an unknown claim is a map":     {[]kctest.Option{set("permissions", map[string]any{"Sub": []any{1, nil, "x"}})}, ""},
		"TM-001 exp within the leeway":  {[]kctest.Option{set("exp", now-9)}, ""},
		"exp a leeway ago":              {[]kctest.Option{set("exp", now-10)}, ReasonExpired},
		"exp with a fraction":           {[]kctest.Option{set("exp", float64(now)+300.5)}, ""}, // TM-006
		"exp is true":                   {[]kctest.Option{set("exp", true)}, ReasonClaimType},
		"exp beyond the year 9999":      {[]kctest.Option{set("exp", 253402300800)}, ReasonClaimType},
		"nbf a leeway ahead":            {[]kctest.Option{set("nbf", now+10)}, ""},
		"nbf more than a leeway ahead":  {[]kctest.Option{set("nbf", now+11)}, ReasonNotYetValid},
		"nbf is null":                   {[]kctest.Option{set("nbf", nil)}, ReasonClaimType},
		"nbf is a string":               {[]kctest.Option{set("nbf", "0")}, ReasonClaimType},
		"iat a leeway ahead":            {[]kctest.Option{set("iat", now+10)}, ""},
		"iat more than a leeway ahead":  {[]kctest.Option{set("iat", now+11)}, ReasonIssuedInFuture},
		"iat is absent":                 {[]kctest.Option{drop("iat")}, ReasonMissingClaim},
		"a lifetime of 24 h":            {[]kctest.Option{set("exp", now+24*3600)}, ""},
		"a longer lifetime":             {[]kctest.Option{set("exp", now+24*3600+1)}, ReasonLifetime},
		"iat in another age":            {[]kctest.Option{set("iat", 0)}, ReasonLifetime},
		"cnf is present":                {[]kctest.Option{set("cnf", map[string]any{"jkt": "x"})}, ReasonBound},
		"SUB beside sub":                {[]kctest.Option{set("SUB", "x")}, ReasonAmbiguous},
		"SUB without sub":               {[]kctest.Option{set("SUB", "x"), drop("sub")}, ReasonAmbiguous},
		"a long s in sub":               {[]kctest.Option{set("ſub", "x")}, ReasonAmbiguous}, // JS-028
		"the Kelvin sign in nothing":    {[]kctest.Option{set("toKen", "x")}, ""},
		"Cnf in place of cnf":           {[]kctest.Option{set("Cnf", map[string]any{"jkt": "x"})}, ReasonAmbiguous},
		"Realm_Access":                  {[]kctest.Option{set("Realm_Access", 1)}, ReasonAmbiguous},
		"nonce is a number":             {[]kctest.Option{set("nonce", 1)}, ReasonClaimType},
		"distributed claims":            {[]kctest.Option{set("_claim_names", map[string]any{"a": "b"})}, ReasonClaimType},
		"typ is DPoP without cnf":       {[]kctest.Option{set("typ", "DPoP")}, ReasonTokenType},
		"header typ in small letters":   {[]kctest.Option{kctest.Header("typ", "jwt")}, ""}, // CL-007
		"header typ absent":             {[]kctest.Option{kctest.WithoutHeader("typ")}, ReasonHeaderType},
		"header typ is a number":        {[]kctest.Option{kctest.Header("typ", 1)}, ReasonHeaderType},
		"header kid is null":            {[]kctest.Option{kctest.Header("kid", nil)}, ReasonUnknownKey},
		"header kid is a list":          {[]kctest.Option{kctest.Header("kid", []string{"x"})}, ReasonMalformed},
		"header kid has 257 bytes":      {[]kctest.Option{kctest.Header("kid", strings.Repeat("x", 257))}, ReasonMalformed},
		"header has crit":               {[]kctest.Option{kctest.Header("crit", []string{})}, ReasonMalformed},
		"header jku is a list":          {[]kctest.Option{kctest.Header("jku", []string{"https://evil.test"})}, ReasonMalformed},
		"header jku leads elsewhere":    {[]kctest.Option{kctest.Header("jku", "https://evil.test/jwks")}, ""}, // AK-016: nobody goes there
		"header x5u is an object":       {[]kctest.Option{kctest.Header("x5u", map[string]any{})}, ReasonMalformed},
		"header x5c is null":            {[]kctest.Option{kctest.Header("x5c", nil)}, ReasonMalformed},
		"header jwk is a list":          {[]kctest.Option{kctest.Header("jwk", []string{})}, ReasonMalformed},
		"nbf before 1970":               {[]kctest.Option{set("nbf", -1)}, ReasonClaimType},
		"header has b64":                {[]kctest.Option{kctest.Header("b64", true)}, ReasonMalformed},
		"header has Kid too":            {[]kctest.Option{kctest.Header("Kid", "x")}, ReasonMalformed},
		"header has an unknown member":  {[]kctest.Option{kctest.Header("x-realm", "acme")}, ""},
		"header alg is HS256":           {[]kctest.Option{kctest.Header("alg", "HS256")}, ReasonAlgorithm},
		"header alg is PS256":           {[]kctest.Option{kctest.Header("alg", "PS256")}, ReasonSignature}, // AK-008
		"signed with ES384":             {[]kctest.Option{kctest.SignedBy(kctest.NewKey("ES384"))}, ReasonAlgorithm},
		"signed by somebody else's key": {[]kctest.Option{kctest.SignedBy(kctest.NewKey("ES256").WithID(s.realm.ActiveKey("ES256").ID))}, ReasonSignature},
	} {
		t.Run(name, func(t *testing.T) {
			change := append([]kctest.Option{set("aud", "api"), set("exp", now+300)}, test.change...)
			_, err := s.verifier.Verify(t.Context(), s.realm.AccessToken(s.alice, change...))
			if got := ReasonOf(err); got != test.want || (err == nil) != (test.want == "") {
				t.Errorf("got %q (%v), want %q", got, err, test.want)
			}
		})
	}
}

func TestOtherTokensOfTheRealmAreNotAccessTokens(t *testing.T) {
	s := newStage(t)
	for name, test := range map[string]struct {
		raw  string
		want Reason
	}{
		"ID token":      {s.realm.IDToken(s.alice), ReasonTokenType},
		"refresh token": {s.realm.RefreshToken(s.alice), ReasonAlgorithm},
		"logout token":  {s.realm.LogoutToken(s.alice, "session"), ReasonTokenType},
		"user info":     {s.realm.AccessToken(s.alice, kctest.Without("typ", "exp", "iat")), ReasonTokenType},
	} {
		t.Run(name, func(t *testing.T) { s.want(t, test.raw, test.want, name) })
	}
	if n := s.realm.Requests(kctest.Certs); n != 0 {
		t.Errorf("keys were fetched %d times for tokens that need none", n)
	}
}

// What can be told without a key never asks for one.
func TestHopelessTokensFetchNoKeys(t *testing.T) {
	s := newStage(t)
	for name, raw := range map[string]string{
		"another issuer": s.realm.AccessToken(s.alice, kctest.Claim("iss", "https://evil.test/realms/acme")),
		"expired":        s.realm.AccessToken(s.alice, kctest.IssuedAt(s.now().Add(-48*time.Hour))),
		"alg none":       s.realm.AccessToken(s.alice, kctest.Header("alg", "none")),
		"no kid":         s.realm.AccessToken(s.alice, kctest.WithoutHeader("kid")),
		"kid of rubbish": s.realm.AccessToken(s.alice, kctest.Header("kid", "x\nlevel=error")),
		"kid is empty":   s.realm.AccessToken(s.alice, kctest.Header("kid", "")),
		"bound":          s.realm.AccessToken(s.alice, kctest.Claim("cnf", nil)),
		"rubbish":        strings.Repeat("x", 5000),
		"too large":      s.realm.AccessToken(s.alice, kctest.Claim("x", strings.Repeat("x", 20_000))),
		"duplicates":     s.realm.ActiveKey("ES256").Sign("ES256", []byte(`{"alg":"ES256","kid":"x","typ":"JWT"}`), []byte(`{"iss":"a","iss":"b"}`)),
		"broken x5c":     s.realm.AccessToken(s.alice, kctest.Header("x5c", []string{"AAAA"})),
	} {
		t.Run(name, func(t *testing.T) {
			if got := s.verify(t, raw); got == "" {
				t.Error("accepted")
			}
		})
	}
	if n := s.realm.Requests(kctest.Discovery); n != 0 {
		t.Errorf("the issuer was asked %d times", n)
	}
}

func TestTheSizeBoundIsExact(t *testing.T) {
	s := newStage(t)
	raw := s.realm.AccessToken(s.alice)
	for name, test := range map[string]struct {
		size int
		want Reason
	}{
		"just as long":  {len(raw), ""},
		"one byte less": {len(raw) - 1, ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := New(Config{Issuer: s.realm.Issuer(), Keys: s.keys, Now: s.now, MaxSize: test.size})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(t.Context(), raw); ReasonOf(err) != test.want {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// The compact form has one spelling, so that one token has one identity.
func TestOneTokenHasOneSpelling(t *testing.T) {
	s := newStage(t)
	raw := s.realm.AccessToken(s.alice)
	last := len(raw) - 1
	// 64 bytes of signature leave four spare bits in the last character.
	spare := raw[:last] + string(base64Next(raw[last]))
	for name, other := range map[string]string{
		"spare bits":      spare,
		"padding":         raw + "==",
		"a line break":    raw[:40] + "\n" + raw[40:],
		"a space":         raw[:40] + " " + raw[40:],
		"a space after":   raw + " ",
		"a fourth part":   raw + ".",
		"a leading dot":   "." + raw,
		"only one part":   strings.ReplaceAll(raw, ".", ""),
		"nothing":         "",
		"JSON":            `{"payload":"e30","protected":"e30","signature":"e30"}`,
		"a trailing NUL":  raw + "\x00",
		"Bearer in front": "Bearer " + raw,
	} {
		t.Run(name, func(t *testing.T) { s.want(t, other, ReasonMalformed, name) })
	}
	s.want(t, raw, "", "the token itself")
}

// An ECDSA signature is two numbers of full length (RFC 7518 §3.4): one whose leading
// zero was dropped is another spelling of the same token.
func TestAShortenedECDSASignatureIsRefused(t *testing.T) {
	s := newStage(t)
	for {
		raw := s.realm.AccessToken(s.alice)
		_, _, signature, err := decodeCompact(raw)
		if err != nil {
			t.Fatal(err)
		}
		if signature[32] != 0 {
			continue // once in 256 times
		}
		s.want(t, raw, "", "in full length")
		short := slices.Delete(signature, 32, 33)
		s.want(t, raw[:strings.LastIndexByte(raw, '.')+1]+base64.RawURLEncoding.EncodeToString(short),
			ReasonSignature, "shortened")
		return
	}
}

// base64Next returns the character of the next value.
func base64Next(c byte) byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return alphabet[strings.IndexByte(alphabet, c)+1]
}

func testATokenIsCheckedAgainAsTimePasses(t *testing.T) {
	s := newStage(t)
	s.realm.SetLifespan(5 * time.Minute)
	tok, err := s.verifier.Authenticate(t.Context(), s.realm.AccessToken(s.alice))
	if err != nil {
		t.Fatal(err)
	}
	s.advance(5*time.Minute - time.Second)
	if err := s.verifier.Check(t.Context(), tok); err != nil {
		t.Errorf("a second before its end: %v", err)
	}
	s.advance(time.Second)
	if err := s.verifier.Check(t.Context(), tok); ReasonOf(err) != ReasonExpired {
		t.Errorf("at its end: %v", err)
	}
	s.advance(-time.Hour)
	if err := s.verifier.Check(t.Context(), tok); ReasonOf(err) != ReasonIssuedInFuture {
		t.Errorf("with the clock set back: %v", err)
	}
}

// One verifier's verdict is not another's: policy is applied on each check.
func testATokenIsCheckedAgainByAnotherPolicy(t *testing.T) {
	s := newStage(t)
	tok, err := s.verifier.Authenticate(t.Context(), s.realm.AccessToken(s.alice))
	if err != nil {
		t.Fatal(err)
	}
	strict, err := New(Config{Issuer: s.realm.Issuer(), Keys: s.keys, Now: s.now, Audiences: []string{"api"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := strict.Check(t.Context(), tok); ReasonOf(err) != ReasonAudience {
		t.Errorf("got %v", err)
	}
	tok.Issuer = "https://other.test/realms/acme"
	if err := s.verifier.Check(t.Context(), tok); ReasonOf(err) != ReasonIssuer {
		t.Errorf("another issuer's: %v", err)
	}
}

func TestHintsTellTheRemedyAndErrorsNothing(t *testing.T) {
	s := newStage(t, func(_ *KeySetConfig, c *Config) { c.Audiences = []string{"api"} })
	api := kctest.Claim("aud", "api")
	for name, test := range map[string]struct {
		raw  string
		hint []string
	}{
		"audience": {s.realm.AccessToken(s.alice), []string{`"account"`, `"api"`, "Audience mapper"}},
		"no audience": {
			s.realm.AccessToken(s.alice, kctest.Without("aud")),
			[]string{"no aud", "Audience mapper"},
		},
		"sub": {s.realm.AccessToken(s.alice, api, kctest.Without("sub")), []string{"no sub", `"basic"`}},
		"sub and aud": {
			s.realm.AccessToken(s.alice, kctest.Without("sub", "aud")),
			[]string{"neither sub nor aud", "lightweight", `"basic"`},
		},
		"issuer": {
			s.realm.AccessToken(s.alice, api, kctest.Claim("iss", "https://other.test/realms/other")),
			[]string{"https://other.test/realms/other", s.realm.Issuer(), "another realm or Keycloak"},
		},
		"KC-016 issuer by another host name": {
			s.realm.AccessToken(s.alice, api, kctest.Claim("iss", "https://other.test/realms/acme")),
			[]string{"https://other.test/realms/acme", s.realm.Issuer(), "another host name", "backchannel_url"},
		},
		"issuer with a slash at its end": { // CL-013
			s.realm.AccessToken(s.alice, api, kctest.Claim("iss", s.realm.Issuer()+"/")),
			[]string{s.realm.Issuer() + "/", "slash at the end"},
		},
		"a refresh token in the right algorithm": {
			s.realm.AccessToken(s.alice, api, kctest.Claim("typ", "Refresh")),
			[]string{"refresh token", "access token"},
		},
		"ID token": {s.realm.IDToken(s.alice), []string{"ID token", "access token"}},
		"a hostile issuer": {
			s.realm.AccessToken(s.alice, kctest.Claim("iss", "x\nlevel=error "+strings.Repeat("y", 500))),
			[]string{`"x\nlevel=error `, "…"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.verifier.Verify(t.Context(), test.raw)
			var refusal *Error
			if !errors.As(err, &refusal) {
				t.Fatalf("got %v", err)
			}
			for _, part := range test.hint {
				if !strings.Contains(refusal.Hint, part) {
					t.Errorf("%q is not in %q", part, refusal.Hint)
				}
			}
			if strings.ContainsAny(refusal.Hint, "\n\x00") || len(refusal.Hint) > 700 {
				t.Errorf("not fit for a log: %q", refusal.Hint)
			}
			if want := "token: " + string(refusal.Reason); err.Error() != want {
				t.Errorf("the error is %q, want %q", err, want)
			}
		})
	}
}

func TestConfigIsChecked(t *testing.T) {
	s := newStage(t)
	for name, change := range map[string]func(*Config){
		"no issuer":           func(c *Config) { c.Issuer = "" },
		"a binding unknown":   func(c *Config) { c.Bound = 4 },
		"no keys":             func(c *Config) { c.Keys = nil },
		"another realm's":     func(c *Config) { c.Issuer += "2" },
		"alg none":            func(c *Config) { c.Algorithms = []string{"RS256", "none"} },
		"HMAC":                func(c *Config) { c.Algorithms = []string{"HS256"} },
		"small letters":       func(c *Config) { c.Algorithms = []string{"rs256"} },
		"encryption":          func(c *Config) { c.Algorithms = []string{"RSA-OAEP"} },
		"negative leeway":     func(c *Config) { c.Leeway = -1 },
		"negative lifetime":   func(c *Config) { c.MaxLifetime = -1 },
		"negative size":       func(c *Config) { c.MaxSize = -1 },
		"an empty audience":   func(c *Config) { c.Audiences = []string{""} },
		"an empty authorized": func(c *Config) { c.AuthorizedParties = []string{""} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Issuer: s.realm.Issuer(), Keys: s.keys}
			if _, err := New(cfg); err != nil {
				t.Fatalf("unchanged: %v", err)
			}
			change(&cfg)
			if _, err := New(cfg); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestStrongerAlgorithmsOnRequest(t *testing.T) {
	for _, alg := range []string{"RS384", "RS512", "PS384", "PS512", "ES384", "ES512"} {
		t.Run(alg, func(t *testing.T) {
			s := newStage(t, func(_ *KeySetConfig, c *Config) { c.Algorithms = []string{alg} })
			s.want(t, s.realm.AccessToken(s.alice, kctest.Algorithm(alg)), "", alg)
			s.want(t, s.realm.AccessToken(s.alice), ReasonAlgorithm, "the default, then no longer")
		})
	}
}

func TestAnEndedContextIsNoVerdict(t *testing.T) {
	s := newStage(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.realm.Break(kctest.Hang())
	_, err := s.verifier.Verify(ctx, s.realm.AccessToken(s.alice))
	if err != context.Canceled || ReasonOf(err) != "" { //nolint:errorlint // exactly that is promised
		t.Errorf("got %v", err)
	}
}
